// How a call is laid out before it runs: the gates' buffer, the workspace, and who does what.
#pragma once

#include <tuple>

#include "matmul.h"
#include "threads.h"

namespace gatewise {
namespace {

// Bytes of gates that a thread computes ahead of the recurrence, so that they are still in its second cache when they
// are used (T=784, B=64, I=1: 25 % faster than the whole sequence ahead).
constexpr Index chunk_bytes = 512 * 1024;

// Multiply-adds below which waking a second thread costs more than it saves.
constexpr double small_work = 200e3;

// Multiply-adds of a step below which no more than two threads share the units, and none if they wait more than twice.
constexpr double small_step = 20e3;

// Whether members gain by sharing the units, though they wait for each other, and read what the others wrote: that
// depends on what waiting costs (B=1, H=64: two threads are 1.5 times as fast as one where it takes 40 ns; B=2, H=64: 0.6
// times where it takes 290).
inline bool waiting_pays(Grid grid, Index steps, std::int64_t now) {
    constexpr double work_of_a_wait = 190;    // multiply-adds that make up for each nanosecond of it
    constexpr double always = 60e3;           // those that make up for the slowest wait that was seen
    constexpr double work_of_waking = 500e6;  // those of a call that gains although a thread has to be woken up
    if (grid.members == 1) return true;
    const bool is_long = grid.work * static_cast<double>(steps) > work_of_waking;
    if (others_may_sleep(now)) return is_long;
    const double cost = barrier_nanoseconds(now);
    if (cost < 0) return is_long || grid.work > always;
    return cost > 0 ? grid.work > work_of_a_wait * cost : is_long;
}

// One row (step, batch) of gates or of their gradients; cells.h says which slots it has.
struct GateRow {
    Index slot;   // floats of a slot: H padded
    Index width;  // floats of a row

    GateRow(Index hidden_size, int slots, Index more = 0)
        : slot(padded(hidden_size)), width(slots * slot + more) {}
};

// Panels [begin, end) of weights (gates * units, depth): packed, the first one at `packed`, or, where that is null, as the
// layer keeps them. squeezed: as pack_transposed() says, the last one.
template <typename Number, typename Weight>
struct PanelsOf {
    const Number* matrix;
    Index units, depth;
    const Weight* packed;
    Index begin, end;
    bool squeezed;
};

// Panels of the columns of weights (depth, columns), one of some slots each: packed, `size` numbers a panel, the first
// slot's segment of the first panel at `packed`, or, where that is null, as the layer keeps them.
template <typename Number, typename Weight>
struct BackPanelsOf {
    const Number* const* matrices;
    Index depth, columns;
    const Weight* packed;
    Index size, begin, end;
};

// Hands out parts of the workspace; without one it only counts.
class Arena {
  public:
    explicit Arena(float* base) : base_(base) {}

    template <typename T = float>
    T* take(Index count) {
        const Index floats = (count * static_cast<Index>(sizeof(T)) + 3) / 4;
        T* part = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
        used_ += (floats + 15) / 16 * 16;  // aligned to 64 bytes
        return part;
    }
    Index used() const { return used_; }

  private:
    float* base_;
    Index used_ = 0;
};

// `packs`: the call packs the weights; else it reads them where they lie. `waits`: how often members that share the units
// wait for each other in a step.
template <typename Cell, typename Arithmetic>
Grid grid_for(const Shape& s, int threads, bool packs, int waits) {
    const auto size = [](Index number) { return static_cast<double>(number); };
    const double step = Cell::has_recurrent_weights * Cell::gates * size(s.B) * size(s.H) * size(s.H);
    const double work = size(s.T) * (step + Cell::gates * size(s.B) * size(s.H) * size(s.I));
    if (threads == 1 || work < small_work) return {1, 1, 1, work};
    if (s.T == 1 || !packs) {
        const int members = static_cast<int>(std::min<Index>(threads, panels(s.H)));
        return {1, members, members, work};
    }
    const Index weight_bytes = static_cast<Index>(sizeof(typename Arithmetic::Weight));
    const bool cached = !Cell::has_recurrent_weights ||
                        Cell::gates * s.H * padded(s.H) * weight_bytes <= Arithmetic::cached_weight_bytes;
    int groups = static_cast<int>(cached ? std::min<Index>(threads, s.B / Arithmetic::rows_of_a_thread) : 1);
    if (groups < 1) groups = 1;
    const int members = static_cast<int>(std::min<Index>(threads / groups, panels(s.H)));
    if (!Cell::has_recurrent_weights) return {groups, members, members, work};
    if (step >= small_step) return {groups, members, members, step / waits};
    return {groups, std::min(members, waits > 2 ? 1 : 2), 1, step / waits};
}

// The rows of group `group`: as many as the others have, or, where lengths differ, with about as many steps.
inline std::pair<Index, Index> rows_of(const Shape& s, Index group, Index groups) {
    if (!s.rows) return part_of(s.B, group, groups);
    const Index all = s.row_steps();
    const auto border = [&](Index part) {
        if (part == groups) return s.B;
        Index row = 0;
        for (Index before = 0; row < s.B && before * groups < all * part; ++row) before += s.rows->lengths[row];
        return row;
    };
    return {border(group), border(group + 1)};
}

// Share number `index` of a grid, with a barrier for each group.
inline Share share_of(const Shape& s, Grid grid, int index, Barrier* barriers) {
    Share share{};
    share.share = index;
    share.shares = grid.shares();
    share.group = index / grid.members;
    share.groups = grid.groups;
    share.member = index % grid.members;
    share.members = grid.members;
    std::tie(share.row_begin, share.row_end) = rows_of(s, share.group, grid.groups);
    std::tie(share.panel_begin, share.panel_end) = part_of(panels(s.H), share.member, grid.members);
    std::tie(share.state_begin, share.state_end) = part_of(panels(s.state()), share.member, grid.members);
    share.barrier = barriers + share.group;
    return share;
}

// The rows of a share that take step t.
inline Index rows_at(const Shape& s, const Share& share, Index t) {
    return s.rows ? std::clamp<Index>(s.rows->active[t] - share.row_begin, 0, share.rows()) : share.rows();
}

// Steps that are handled together, for a group of `rows` rows: each of its members has `bytes` of their gates.
inline Index chunk_steps(const Shape& s, Grid grid, Index rows, Index row_width, Index bytes = chunk_bytes) {
    const Index floats = grid.chunks * bytes / static_cast<Index>(sizeof(float));
    return std::clamp<Index>(floats / (rows * row_width), 1, s.T);
}

inline Index most_rows(const Shape& s, Grid grid) {
    Index most = 1;
    for (Index group = 0; group < grid.groups; ++group) {
        const auto [begin, end] = rows_of(s, group, grid.groups);
        most = std::max(most, end - begin);
    }
    return most;
}

}  // namespace
}  // namespace gatewise
