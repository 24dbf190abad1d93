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

// Multiply-adds of a step below which to wait for each other costs more than to share the units saves (B=1, H=64: one
// thread is 1.4 times as fast as two; at H=96 two are faster).
constexpr double small_step = 20e3;

// One row (step, batch) of the gates' buffer. Each slot is padded to whole vectors:
//     after  [hn | r | z | n]     hn = W_hn h + b_hn
//     before      [r | z | n]
// Gradients have the same layout. The input's gradients are the slots r z n (the weights' own order); the recurrent
// ones are hn r z (after), whose first stands for the candidate's, or r z n (before).
struct GateRow {
    Index slot;   // floats of a slot: H padded
    Index r;      // where slot r begins
    Index width;  // floats of a row

    GateRow(Index hidden_size, bool with_hn)
        : slot(padded(hidden_size)), r(with_hn ? slot : 0), width(r + 3 * slot) {}
    Index z() const { return r + slot; }
    Index n() const { return r + 2 * slot; }
};

inline GateRow saved_row(const GruShape& s) { return GateRow(s.H, s.reset == Reset::after); }

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

// Calls with up to `unpacked_rows` rows (step, batch) read the weights where they lie: to pack them would cost more
// than it saves.
template <typename Arithmetic>
Grid grid_for(const GruShape& s, int threads, Index unpacked_rows) {
    const double work = 3.0 * static_cast<double>(s.T) * static_cast<double>(s.B) * static_cast<double>(s.H) *
                        static_cast<double>(s.H + s.I);
    if (threads == 1 || work < small_work) return {1, 1, 1};
    if (s.T == 1 || s.T * s.B <= unpacked_rows) {
        const int members = static_cast<int>(std::min<Index>(threads, panels(s.H)));
        return {1, members, members};
    }
    const Index weight_bytes = static_cast<Index>(sizeof(typename Arithmetic::Weight));
    const bool cached = 3 * s.H * padded(s.H) * weight_bytes <= Arithmetic::cached_weight_bytes;
    int groups = static_cast<int>(cached ? std::min<Index>(threads, s.B / Arithmetic::rows_of_a_thread) : 1);
    if (groups < 1) groups = 1;
    const double step = 3.0 * static_cast<double>(s.B) * static_cast<double>(s.H) * static_cast<double>(s.H);
    const int members = static_cast<int>(std::min<Index>(threads / groups, panels(s.H)));
    if (step < small_step) return {groups, 1, 1};
    return {groups, members, members};
}

// Share number `index` of a grid, with a barrier for each group.
inline Share share_of(const GruShape& s, Grid grid, int index, Barrier* barriers) {
    Share share{};
    share.share = index;
    share.shares = grid.shares();
    share.group = index / grid.members;
    share.groups = grid.groups;
    share.member = index % grid.members;
    share.members = grid.members;
    std::tie(share.row_begin, share.row_end) = part_of(s.B, share.group, grid.groups);
    std::tie(share.panel_begin, share.panel_end) = part_of(panels(s.H), share.member, grid.members);
    share.barrier = barriers + share.group;
    return share;
}

// Steps that are handled together, for a group of `rows` rows: each of its members has `bytes` of their gates.
inline Index chunk_steps(const GruShape& s, Grid grid, Index rows, Index row_width, Index bytes = chunk_bytes) {
    const Index floats = grid.chunks * bytes / static_cast<Index>(sizeof(float));
    return std::clamp<Index>(floats / (rows * row_width), 1, s.T);
}

inline Index most_rows(const GruShape& s, Grid grid) { return (s.B + grid.groups - 1) / grid.groups; }

}  // namespace
}  // namespace gatewise
