// The memory of a backward call: what its threads share, and what each of them has of its own.
#pragma once

#include <optional>

#include "extended_backward.h"
#include "forward.h"

namespace gatewise {
namespace {

// What a step of a row left for its derivative.
template <typename Number>
struct RowStep {
    const float* saved;
    const Number* dy;    // or null
    const float* c;      // the second state before the step
};

// Whether a call packs the weights; else it reads them where they lie, and writes their gradients in place: another
// copy of all products, which a call of an extended cell is not worth.
template <typename Cell, typename Arithmetic>
constexpr Index unpacked_backward_rows = is_extended<Cell> ? 0 : Arithmetic::unpacked_backward_rows;
template <typename Cell, typename Arithmetic>
bool packs_backward(const Shape& s) {
    return s.T * s.B > unpacked_backward_rows<Cell, Arithmetic>;
}

// What the threads of a backward call share, and what each group has of its own.
template <typename Cell, typename Arithmetic>
struct BackwardSpace {
    using Number = typename Arithmetic::Number;

    const bool packs;
    const bool replays;  // what the forward did not save
    std::optional<ForwardSpace<Cell, Arithmetic>> forward;
    Number* discarded;
    // Packed weights, all panels, a segment for each gate.
    typename Arithmetic::Weight* weight_ih;  // panels of I columns
    typename Arithmetic::Weight* weight_hh;  // panels of H columns, in the order of the gradients' first slots
    typename Arithmetic::Weight* weight_hr;  // panels of H columns, of a projection
    // Of each group: its part of what is summed over the batch, transposed, so that the long side is the vectors' own.
    float* dweight_ih;  // (I, slots of the gates)
    float* dweight_hh;  // (H, first slots)
    float* dweight_hr;  // (R, slot), of a projection, as it is
    float* dbias;       // one row of gradients
    // Of each group: the state of the sweep.
    float* dgates;    // gradients of a chunk's gates before their activation
    float* dh;        // (rows, slot): gradient of the state
    float* dc;        // (rows, slot): of the second state
    float* restarts;  // (rows, slot), twice: of the first states, from where the rows began anew
    Number* factor;   // the factor of the second product, or of the projection, of a chunk
    float* dstates;   // with a projection: gradients of a chunk's states
    float* sums;      // of each thread: what it needs to sum over a chunk's rows
    // Of each thread: pointers to rows.
    const Number** x_rows;
    Number** dx_rows;
    const Number** state_rows;
    const Number** seen_rows;  // what the recurrent weights read of them
    const Number** factor_rows;
    const Number** dstate_rows;
    RowStep<Number>* row_steps;
    Barrier* barriers;       // one a group
    Index rows, steps;       // most rows of a group, most steps of a chunk
    Index segment;           // packed numbers of a gate's weights in a panel
    Index ih_rows, hh_rows;  // of the sums, padded as the arithmetic needs it
    Index gates_size, states_size, sums_size;  // of a group, of a thread
    std::optional<BackwardExtensionSpace<Cell, Arithmetic>> extension;

    // every: steps from one checkpoint to the next; 0: the forward saved all.
    BackwardSpace(Arena& arena, const Shape& s, Grid grid, Index every)
        : packs(packs_backward<Cell, Arithmetic>(s) || every > 0), replays(every > 0) {
        using Weight = typename Arithmetic::Weight;
        const GateRow row = gradient_row<Cell>(s);
        const Index shares = grid.shares(), width = Cell::gates * row.slot;
        rows = most_rows(s, grid);
        steps = packs ? chunk_steps(s, grid, rows, row.width, Arithmetic::backward_chunk_bytes) : s.T;
        if (replays && Cell::has_second_state) steps = std::min(every, s.T);  // each chunk begins at a checkpoint
        if (replays) forward.emplace(arena, s, grid, true, false, nullptr, steps);
        discarded = arena.take<Number>(replays ? s.B * s.H : 0);
        segment = Arithmetic::segment_size(s.H);
        ih_rows = Arithmetic::sum_rows(s.I);
        hh_rows = Cell::has_recurrent_weights ? Arithmetic::sum_rows(s.state()) : 0;
        gates_size = Arithmetic::Gates::size(steps * rows, row, s.H);
        states_size = projects<Cell> ? Arithmetic::Gates::size(steps * rows, GateRow(s.state(), 1), s.state()) : 0;
        sums_size = packs ? Arithmetic::RowSums::size(s, steps * rows, row) : 0;
        weight_ih = arena.take<Weight>(packs ? panels(s.I) * Cell::gates * segment : 0);
        weight_hh =
            arena.take<Weight>(packs && Cell::has_recurrent_weights ? panels(s.state()) * Cell::gates * segment : 0);
        weight_hr = arena.take<Weight>(packs && projects<Cell> ? panels(s.H) * Arithmetic::segment_size(s.state()) : 0);
        dweight_ih = arena.take(packs ? grid.groups * ih_rows * width : 0);
        dweight_hh = arena.take(packs ? grid.groups * hh_rows * width : 0);
        dweight_hr = arena.take(packs && projects<Cell> ? grid.groups * s.state() * row.slot : 0);
        dbias = arena.take(grid.groups * row.width);
        dgates = arena.take(grid.groups * gates_size);
        dh = arena.take(grid.groups * rows * row.slot);
        dc = arena.take(Cell::has_second_state ? grid.groups * rows * row.slot : 0);
        restarts = arena.take(s.has_resets() ? 2 * grid.groups * rows * row.slot : 0);
        factor = arena.take<Number>(has_factor<Cell> ? grid.groups * steps * rows * row.slot : 0);
        dstates = arena.take(grid.groups * states_size);
        sums = arena.take(shares * sums_size);
        x_rows = arena.take<const Number*>(shares * steps * rows);
        dx_rows = arena.take<Number*>(shares * steps * rows);
        state_rows = arena.take<const Number*>(shares * steps * rows);
        seen_rows = is_extended<Cell> ? arena.take<const Number*>(shares * steps * rows) : state_rows;
        factor_rows = arena.take<const Number*>(has_factor<Cell> ? shares * steps * rows : 0);
        dstate_rows = arena.take<const Number*>(projects<Cell> ? shares * steps * rows : 0);
        row_steps = arena.take<RowStep<Number>>(shares * steps * rows);
        barriers = arena.take<Barrier>(grid.groups);
        extension.emplace(arena, s, grid, rows, steps);
    }
};

}  // namespace
}  // namespace gatewise
