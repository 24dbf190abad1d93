// Cells with what regularises them (kernels/regularisation.py): what both sweeps know of it.
//
// What the plain cells do within a tile of products is done here row by row, after the products of a step have been
// written: a normalisation needs whole rows. Threads that share the hidden units share the rows for that.
//
// Normalised, a row of gates has more slots, G for each side, of the products of the input and of the state:
//
//     saved        those of cells.h | the input's, normalised | the state's, normalised | Statistics
//     gradients    the state's, in the order of cells.h | the input's
#pragma once

#include <cmath>

#include "cells.h"

namespace gatewise {
namespace {

template <typename Cell>
struct Extended : Cell {
    static constexpr int block_count = sizeof Cell::blocks / sizeof *Cell::blocks - 1;
    // The block of a gate, and how many gates it has.
    static constexpr int block_of(int gate) { return block_count > 1 && gate >= Cell::blocks[1]; }
    static constexpr int gates_of(int block) { return Cell::blocks[block + 1] - Cell::blocks[block]; }
};

template <typename Cell>
constexpr bool is_extended = false;
template <typename Cell>
constexpr bool is_extended<Extended<Cell>> = true;

// What normalises a block of numbers: their mean, and 1 / sqrt(variance + epsilon).
struct Moments {
    float mean, scale;
};

// Of a saved row: the scales of the input's blocks, those of the state's, and the moments of the second state.
struct Statistics {
    static constexpr Index size = (6 + lanes - 1) / lanes * lanes;

    float* data;

    float& input(int block) const { return data[block]; }
    float& state(int block) const { return data[2 + block]; }
    void set_second_state(Moments m) const { data[4] = m.mean, data[5] = m.scale; }
    Moments second_state() const { return {data[4], data[5]}; }
};

template <typename Cell>
GateRow saved_row(const Shape& s) {
    if constexpr (is_extended<Cell>)
        if (s.normalised) return GateRow(s.H, Cell::saved + 2 * Cell::gates, Statistics::size);
    return GateRow(s.H, Cell::saved);
}

template <typename Cell>
GateRow gradient_row(const Shape& s) {
    if constexpr (is_extended<Cell>)
        if (s.normalised) return GateRow(s.H, 2 * Cell::gates);
    return GateRow(s.H, Cell::gradients);
}

// The slot of the gradients where those of the input's products begin.
template <typename Cell>
constexpr int first_input_gradient(const Shape& s) {
    return is_extended<Cell> && s.normalised ? Cell::gates : Cell::first_gate;
}

// The sum of what the function gives for the vectors at 0, lanes, ... below `end`, a multiple of lanes. Four sums, for
// an addition waits for the one before.
template <typename Function>
GATEWISE_INLINE inline Vec sum_of(Index end, const Function& function) {
    Vec sums[4] = {};
    Index i = 0;
    for (; i + 4 * lanes <= end; i += 4 * lanes)
        for (int k = 0; k < 4; ++k) sums[k] += function(i + k * lanes);
    for (; i < end; i += lanes) sums[0] += function(i);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Of `count` numbers in each of some slots, whose padding is zero.
inline Moments moments_of(const float* numbers, int slots, Index slot, Index count) {
    constexpr float epsilon = 1e-5f;  // kernels/regularisation.py
    const float size = static_cast<float>(slots * count);
    const auto number = [=](Index i) GATEWISE_INLINE { return load(numbers + i); };
    const float mean = total(sum_of(slots * slot, number)) / size;
    const auto square = [=](Index i) GATEWISE_INLINE {
        const Vec deviation = load(numbers + i) - mean;
        return deviation * deviation;
    };
    Vec squares{};
    if (count == slot) {
        squares = sum_of(slots * slot, square);
    } else {
        const Index whole = count / lanes * lanes;
        for (Index at = 0; at < slots * slot; at += slot)
            squares += sum_of(whole, [=](Index i) GATEWISE_INLINE { return square(at + i); }) +
                       first(square(at + whole), count - whole);
    }
    return {mean, 1.0f / std::sqrt(total(squares) / size + epsilon)};
}

// body(unit, used): a vector of units at a time.
template <typename Body>
GATEWISE_INLINE inline void for_units(Index units, const Body& body) {
    const Index whole = units / lanes * lanes;
    for (Index unit = 0; unit < whole; unit += lanes) body(unit, lanes);
    if (whole < units) body(whole, units - whole);
}

// k of one row in one step.
class Kept {
  public:
    Kept(const Shape& s, const Sequence<const bool>& masks, double part, Index t, Index b)
        : mask_(masks.data ? s.at(masks, t, b) : nullptr), old_part_(static_cast<float>(part)),
          new_part_(static_cast<float>(1 - part)), nothing_(!masks.data && part == 0) {}

    // k * before + (1 - k) * after
    GATEWISE_INLINE Vec of(Vec before, Vec after, Index unit, Index used) const {
        if (nothing_) return after;
        if (!mask_) return old_part_ * before + new_part_ * after;
        return load_flags(mask_ + unit, used) ? before : after;
    }
    // What of a gradient belongs to each.
    GATEWISE_INLINE Vec before(Vec gradient, Index unit, Index used) const {
        if (nothing_) return Vec{};
        if (!mask_) return old_part_ * gradient;
        return load_flags(mask_ + unit, used) ? gradient : Vec{};
    }
    GATEWISE_INLINE Vec after(Vec gradient, Index unit, Index used) const {
        if (nothing_) return gradient;
        if (!mask_) return new_part_ * gradient;
        return load_flags(mask_ + unit, used) ? Vec{} : gradient;
    }

  private:
    const bool* mask_;
    float old_part_, new_part_;
    bool nothing_;
};

// The gains of a normalised call, in slots, padded with zeros.
template <typename Cell>
struct Gains {
    float *input = nullptr, *state = nullptr;  // a slot for each gate
    float *cell = nullptr, *cell_bias = nullptr;

    Gains(Arena& arena, const Shape& s) {
        if (!s.normalised) return;
        const Index slot = padded(s.H);
        input = arena.take(Cell::gates * slot);
        state = arena.take(Cell::gates * slot);
        if (!Cell::has_second_state) return;
        cell = arena.take(slot);
        cell_bias = arena.take(slot);
    }

    // The panels [begin, end).
    void prepare(const Shape& s, const Regularisation& r, Index begin, Index end) const {
        if (!s.normalised) return;
        const Index slot = padded(s.H);
        const auto copy = [&](float* to, const float* from, int slots) {
            for (int g = 0; g < slots; ++g)
                for (Index p = begin; p < end; ++p)
                    store(to + g * slot + p * lanes,
                          from ? load_first(from + g * s.H + p * lanes, lanes_used(s.H, p)) : Vec{});
        };
        copy(input, r.norm_ih, Cell::gates);
        copy(state, r.norm_hh, Cell::gates);
        if (!Cell::has_second_state) return;
        copy(cell, r.norm_c, 1);
        copy(cell_bias, r.norm_c_bias, 1);
    }
};

// The rows of a share's group that it does where its members share the rows: of the first `count` ones.
inline std::pair<Index, Index> own_rows(const Share& share, Index count) {
    return part_of(count, share.member, share.members);
}

}  // namespace
}  // namespace gatewise
