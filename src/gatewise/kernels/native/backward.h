// The backward sweep: the derivative of each numbered equation of kernels/reference.py, last equation first.
#pragma once

#include "plan.h"

namespace gatewise {
namespace {

// What the threads of a backward call share, and what each group has of its own.
template <typename Arithmetic>
struct BackwardSpace {
    using Number = typename Arithmetic::Number;

    const bool packs;  // the weights; else they are read where they lie, and their gradients written in place
    // Packed weights, all panels.
    typename Arithmetic::Weight* weight_ih;  // panels of I columns, for slots r z n
    typename Arithmetic::Weight* weight_hh;  // panels of H columns, for slots hn r z, or r z n
    // Of each group: its part of what is summed over the batch, transposed, so that the long side is the vectors' own.
    float* dweight_ih;  // (I, slots r z n)
    float* dweight_hh;  // (H, slots hn r z, or r z n)
    float* dbias;       // one gates' row
    // Of each group: the state of the sweep.
    float* dgates;        // gradients of a chunk's gates before their activation
    float* dh;            // (rows, slot): gradient of the state
    Number* reset_state;  // before: r * h of a chunk
    float* sums;          // of each thread: what it needs to sum over a chunk's rows
    // Of each thread: pointers to rows.
    const Number** x_rows;
    Number** dx_rows;
    const Number** state_rows;
    const Number** reset_rows;
    Barrier* barriers;      // one a group
    Index rows, steps;      // most rows of a group, most steps of a chunk
    Index panel;            // packed numbers of a panel
    Index ih_rows, hh_rows;  // of the sums, padded as the arithmetic needs it
    Index gates_size, sums_size;  // of a group, of a thread

    BackwardSpace(Arena& arena, const GruShape& s, Grid grid) : packs(s.T * s.B > Arithmetic::unpacked_backward_rows) {
        using Weight = typename Arithmetic::Weight;
        const bool before = s.reset == Reset::before;
        const GateRow row = saved_row(s);
        const Index shares = grid.shares();
        rows = most_rows(s, grid);
        steps = packs ? chunk_steps(s, grid, rows, row.width, Arithmetic::backward_chunk_bytes) : s.T;
        panel = Arithmetic::back_panel_size(s.H);
        ih_rows = Arithmetic::sum_rows(s.I);
        hh_rows = Arithmetic::sum_rows(s.H);
        gates_size = Arithmetic::Gates::size(steps * rows, row, s.H);
        sums_size = packs ? Arithmetic::RowSums::size(s, steps * rows, row) : 0;
        weight_ih = arena.take<Weight>(packs ? panels(s.I) * panel : 0);
        weight_hh = arena.take<Weight>(packs ? panels(s.H) * panel : 0);
        dweight_ih = arena.take(packs ? grid.groups * ih_rows * 3 * row.slot : 0);
        dweight_hh = arena.take(packs ? grid.groups * hh_rows * 3 * row.slot : 0);
        dbias = arena.take(grid.groups * row.width);
        dgates = arena.take(grid.groups * gates_size);
        dh = arena.take(grid.groups * rows * row.slot);
        reset_state = arena.take<Number>(before ? grid.groups * steps * rows * row.slot : 0);
        sums = arena.take(shares * sums_size);
        x_rows = arena.take<const Number*>(shares * steps * rows);
        dx_rows = arena.take<Number*>(shares * steps * rows);
        state_rows = arena.take<const Number*>(shares * steps * rows);
        reset_rows = arena.take<const Number*>(before ? shares * steps * rows : 0);
        barriers = arena.take<Barrier>(grid.groups);
    }
};

// `Arithmetic` as in forward.h.
template <typename Arithmetic>
class BackwardSweep {
    using Number = typename Arithmetic::Number;
    using Weight = typename Arithmetic::Weight;

  public:
    BackwardSweep(const GruBackwardOf<Number>& call, const BackwardSpace<Arithmetic>& space, const Share& share)
        : call_(call), space_(space), share_(share), s_(call.shape), after_(s_.reset == Reset::after),
          row_(saved_row(s_)),
          dweight_ih_(space.dweight_ih + share.group * space.ih_rows * 3 * row_.slot),
          dweight_hh_(space.dweight_hh + share.group * space.hh_rows * 3 * row_.slot),
          dbias_(space.dbias + share.group * row_.width),
          dgates_(space.dgates + share.group * space.gates_size, row_, s_.H),
          dh_(space.dh + share.group * space.rows * row_.slot),
          reset_state_(space.reset_state + share.group * space.steps * space.rows * row_.slot),
          row_sums_(space.sums + share.share * space.sums_size, share, row_, space.steps * space.rows),
          x_rows_(space.x_rows + share.share * space.steps * space.rows),
          dx_rows_(space.dx_rows + share.share * space.steps * space.rows),
          state_rows_(space.state_rows + share.share * space.steps * space.rows),
          reset_rows_(space.reset_rows + share.share * space.steps * space.rows) {}

    // The three parts of a call; between them, all shares wait for each other.
    void prepare() {
        if (space_.packs) pack();
        clear_bias_sums();
        dgates_.clear_padding(space_.steps * share_.rows(), share_.panel_end);
        start_from_last_state();
    }

    void sweep() {
        for (Index end = s_.T; end > 0; end -= std::min(end, space_.steps)) {
            const Index steps = std::min(end, space_.steps), begin = end - steps;
            find_rows(begin, steps);
            for (Index step = steps - 1; step >= 0; --step) {
                const Index first = step * share_.rows();
                const bool wanted = begin + step > 0 || call_.dh0 != nullptr;
                if (after_) {
                    step_after(begin + step, first, wanted);
                } else {
                    step_before(begin + step, first, wanted);
                }
            }
            const Index rows = steps * share_.rows();
            if (!space_.packs) {
                write_weight_gradients_in_place(rows);
            } else if (end == s_.T) {
                sum_weight_gradients<false>(rows);
            } else {
                sum_weight_gradients<true>(rows);
            }
            add_bias_gradients(rows);
            write_input_gradients(rows);
            share_.wait();  // everyone is done with this chunk's gradients
        }
        write_first_state_gradient();
    }

    void finish() { write_summed_gradients(); }

  private:
    // Every panel; the threads share them.
    void pack() {
        const auto pack = [&](Weight* packed, const Number* gates, Index columns, Index first_gate) {
            const auto [begin, end] = part_of(panels(columns), share_.share, share_.shares);
            for (Index slot = 0; slot < 3; ++slot)
                Arithmetic::pack_back(packed + begin * space_.panel + slot * (space_.panel / 3),
                                      gates + (slot + first_gate) % 3 * s_.H * columns, s_.H, columns, begin, end);
        };
        if (call_.dx.data) pack(space_.weight_ih, call_.weights.ih, s_.I, 0);
        pack(space_.weight_hh, call_.weights.hh, s_.H, first_gate());
    }

    // The gate whose recurrent weights belong to the first slot of the recurrent gradients: hn r z, or r z n.
    Index first_gate() const { return after_ ? 2 : 0; }

    // floats [first, first + slots * slot) of a row as ranges that hold this share's panels: body(offset, panels).
    template <typename Body>
    void for_own_columns(Index first, Index slots, const Body& body) const {
        if (share_.members == 1) return body(first, slots * panels(s_.H));
        for (Index slot = 0; slot < slots; ++slot)
            body(first + slot * row_.slot + share_.panel_begin * lanes, share_.panel_end - share_.panel_begin);
    }

    void clear_bias_sums() {
        for_own_columns(0, row_.width / row_.slot, [&](Index offset, Index width) {
            std::fill_n(dbias_ + offset, width * lanes, 0.0f);
        });
    }

    void start_from_last_state() {
        for (Index b = 0; b < share_.rows(); ++b)
            for (Index p = share_.panel_begin; p < share_.panel_end; ++p) {
                const Number* dhn = call_.dhn.data ? call_.dhn.at(0, share_.row_begin + b) + p * lanes : nullptr;
                store(dh_ + b * row_.slot + p * lanes, dhn ? load_first(dhn, lanes_used(s_.H, p)) : Vec{});
            }
    }

    // Points at the rows of `steps` steps from t on: step by step, the share's rows of the batch in each.
    void find_rows(Index t, Index steps) {
        Index i = 0;
        for (Index step = t; step < t + steps; ++step)
            for (Index b = share_.row_begin; b < share_.row_end; ++b, ++i) {
                x_rows_[i] = call_.x.at(step, b);
                if (call_.dx.data) dx_rows_[i] = call_.dx.at(step, b);
                state_rows_[i] = step == 0 ? call_.h0.at(0, b) : call_.y.at(step - 1, b);
                if (!after_) reset_rows_[i] = reset_state_ + i * row_.slot;
            }
    }

    // body(row of the chunk, row of the batch, first unit, units): each row and panel of the share at step t.
    template <typename Body>
    void for_units(Index first, const Body& body) const {
        for (Index row = 0; row < share_.rows(); ++row)
            for (Index p = share_.panel_begin; p < share_.panel_end; ++p)
                body(first + row, row, p * lanes, lanes_used(s_.H, p));
    }

    // The gradient of the state after step t: what came back from step t + 1, and what the output's user gives.
    Vec state_gradient(Index t, Index row, Index unit, Index used) const {
        const Vec dh = load(dh_ + row * row_.slot + unit);
        return call_.dy.data ? dh + load_first(call_.dy.at(t, share_.row_begin + row) + unit, used) : dh;
    }

    const float* saved(Index t, Index row) const {
        return call_.saved + (t * s_.B + share_.row_begin + row) * row_.width;
    }

    // The lambdas have copies of dgates_, for the reason that forward.h gives.
    void step_after(Index t, Index first, bool wanted) {
        for_units(first, [&, dgates = dgates_](Index i, Index row, Index unit, Index used) GATEWISE_INLINE {
            const float* gates = saved(t, row) + unit;
            const Vec hn = load(gates), r = load(gates + row_.r);
            const Vec z = load(gates + row_.z()), n = load(gates + row_.n());
            const Vec h = load_first(state_rows_[i] + unit, used);
            const Vec dh = state_gradient(t, row, unit, used);
            const Vec dn = dh * (1.0f - z) * (1.0f - n * n);  // (4), (3): of the candidate before its tanh
            dgates.set(i, 0, unit, used, dn * r);                            // (3): of hn
            dgates.set(i, 1, unit, used, dn * hn * r * (1.0f - r));          // (3), (1)
            dgates.set(i, 2, unit, used, dh * (h - n) * z * (1.0f - z));     // (4), (2)
            dgates.set(i, 3, unit, used, dn);
            store(dh_ + row * row_.slot + unit, dh * z);                      // (4)
        });
        share_.wait();  // the gates' gradients are whole
        if (wanted) multiply_recurrent<3>(first, 0, [&](Index, Index row, Index unit, Vec sum) GATEWISE_INLINE {
            float* dh = dh_ + row * row_.slot + unit;
            store(dh, load(dh) + sum);  // (1), (2), (3)
        });
    }

    void step_before(Index t, Index first, bool wanted) {
        for_units(first, [&, dgates = dgates_](Index i, Index row, Index unit, Index used) GATEWISE_INLINE {
            const float* gates = saved(t, row) + unit;
            const Vec r = load(gates + row_.r), z = load(gates + row_.z()), n = load(gates + row_.n());
            const Vec h = load_first(state_rows_[i] + unit, used);
            const Vec dh = state_gradient(t, row, unit, used);
            dgates.set(i, 2, unit, used, dh * (1.0f - z) * (1.0f - n * n));  // (4), (3)
            dgates.set(i, 1, unit, used, dh * (h - n) * z * (1.0f - z));     // (4), (2)
            store(dh_ + row * row_.slot + unit, dh * z);                      // (4)
            store(reset_state_ + i * row_.slot + unit, r * h);
        });
        share_.wait();  // the candidate's gradient is whole
        // sum: of r * h.
        multiply_recurrent<1>(first, 2, [&, dgates = dgates_](Index i, Index row, Index unit, Vec sum) GATEWISE_INLINE {
            const Vec r = load(saved(t, row) + row_.r + unit);
            const Index used = lanes_used(s_.H, unit / lanes);
            const Vec h = load_first(state_rows_[i] + unit, used);
            dgates.set(i, 0, unit, used, sum * h * r * (1.0f - r));  // (3), (1)
            float* dh = dh_ + row * row_.slot + unit;
            store(dh, load(dh) + sum * r);  // (3)
        });
        share_.wait();  // the reset gate's gradient is whole
        if (wanted) multiply_recurrent<2>(first, 0, [&](Index, Index row, Index unit, Vec sum) GATEWISE_INLINE {
            float* dh = dh_ + row * row_.slot + unit;
            store(dh, load(dh) + sum);  // (1), (2)
        });
    }

    // body(row of the chunk, row of the batch, unit, sum): the gradients of `Slots` slots from `slot` on times their
    // recurrent weights.
    template <int Slots, typename Body>
    void multiply_recurrent(Index first, Index slot, const Body& body) {
        const auto use = [&](Index i, Index panel, Vec sum) GATEWISE_INLINE { body(i, i - first, panel * lanes, sum); };
        multiply_back<Slots>(first, share_.rows(), slot, {call_.weights.hh, s_.H, space_.weight_hh, slot, first_gate()},
                             share_.panel_begin, share_.panel_end, use);
    }

    // Weights of some slots: as the layer keeps them, and packed.
    struct Weights {
        const Number* gates;  // (3H, columns)
        Index columns;
        const Weight* packed;
        Index segment;  // of the panels, where the first slot's weights are
        Index gate;     // of the first segment
    };

    // body(row of the chunk, panel, sum): for `count` rows from `first` on, the gradients of `Slots` slots from `slot`
    // on times their weights, in the panels [begin, end).
    template <int Slots, typename Body>
    void multiply_back(Index first, Index count, Index slot, const Weights& w, Index begin, Index end,
                       const Body& body) {
        if constexpr (Arithmetic::unpacked_backward_rows > 0)
            if (!space_.packs) {
                const Number* matrices[Slots];
                for (int i = 0; i < Slots; ++i)
                    matrices[i] = w.gates + (w.segment + i + w.gate) % 3 * s_.H * w.columns;
                return Arithmetic::template multiply_back_unpacked<Slots>(dgates_, first, count, slot, matrices, s_.H,
                                                                          w.columns, begin, end, body);
            }
        Arithmetic::template multiply_back<Slots>(dgates_, first, count, slot, w.segment, s_.H,
                                                  w.packed + begin * space_.panel, begin, end, body);
    }

    // Adds to the sums, or starts them.
    template <bool Add>
    void sum_weight_gradients(Index rows) {
        row_sums_.take_right(dgates_, rows);
        // Slots from first_slot on to the columns from first_column on.
        const auto sum = [&](float* sums, const Number* const* left, Index depth, Index first_column, Index slots,
                             Index first_slot) {
            row_sums_.take_left(left, depth, rows);
            for_own_columns(0, slots, [&](Index column, Index width) {
                row_sums_.template sum<Add>(sums + first_column + column, 3 * row_.slot, left, depth, rows, dgates_,
                                            first_slot * row_.slot + column, width);
            });
        };
        const Index r = row_.r / row_.slot;
        if (call_.dweight_ih) sum(dweight_ih_, x_rows_, s_.I, 0, 3, r);
        if (!call_.dweight_hh) return;
        if (after_) {
            sum(dweight_hh_, state_rows_, s_.H, 0, 3, 0);
        } else {
            sum(dweight_hh_, state_rows_, s_.H, 0, 2, r);
            sum(dweight_hh_, reset_rows_, s_.H, 2 * row_.slot, 1, r + 2);
        }
    }

    // All rows are in one chunk: the sums go straight to torch's layout.
    void write_weight_gradients_in_place([[maybe_unused]] Index rows) {
        if constexpr (Arithmetic::unpacked_backward_rows > 0) {
            const Index unit = share_.panel_begin * lanes, units = std::min(s_.H, share_.panel_end * lanes) - unit;
            for (Index gate = 0; gate < 3; ++gate) {
                const Index input_slot = row_.r + gate * row_.slot;
                if (call_.dweight_ih)
                    Arithmetic::write_outer_products(call_.dweight_ih + (gate * s_.H + unit) * s_.I, dgates_,
                                                     input_slot + unit, units, x_rows_, rows, s_.I);
                const Index hidden_slot = after_ ? (gate + 1) % 3 * row_.slot : input_slot;
                if (call_.dweight_hh)
                    Arithmetic::write_outer_products(call_.dweight_hh + (gate * s_.H + unit) * s_.H, dgates_,
                                                     hidden_slot + unit, units,
                                                     !after_ && gate == 2 ? reset_rows_ : state_rows_, rows, s_.H);
            }
        }
    }

    void add_bias_gradients(Index rows) {
        if (!call_.dbias_ih && !call_.dbias_hh) return;
        for (Index slot = 0; slot < row_.width / row_.slot; ++slot)
            for (Index p = share_.panel_begin; p < share_.panel_end; ++p) {
                float* bias = dbias_ + slot * row_.slot + p * lanes;
                Vec sum = load(bias);
                for (Index i = 0; i < rows; ++i) sum += dgates_.at(i, slot, p * lanes);
                store(bias, sum);
            }
    }

    // dx = slots r z n of the gates' gradients times W_i. A group's members share the chunk's rows, or, where these are
    // few, the panels.
    void write_input_gradients(Index rows) {
        if (!call_.dx.data) return;
        const auto use = [&](Index i, Index panel, Vec sum) GATEWISE_INLINE {
            store_first(dx_rows_[i] + panel * lanes, sum, lanes_used(s_.I, panel));
        };
        const Weights weights{call_.weights.ih, s_.I, space_.weight_ih, 0, 0};
        const Index slot = row_.r / row_.slot;
        if (space_.packs) {
            const auto [first, last] = part_of(rows, share_.member, share_.members);
            multiply_back<3>(first, last - first, slot, weights, 0, panels(s_.I), use);
        } else {
            const auto [begin, end] = part_of(panels(s_.I), share_.member, share_.members);
            multiply_back<3>(0, rows, slot, weights, begin, end, use);
        }
    }

    void write_first_state_gradient() {
        if (!call_.dh0) return;
        for_units(0, [&](Index, Index row, Index unit, Index used) {
            store_first(call_.dh0 + (share_.row_begin + row) * s_.H + unit, load(dh_ + row * row_.slot + unit), used);
        });
    }

    // Sums over the groups, transposed into torch's layout; the threads share the units.
    void write_summed_gradients() {
        const auto [begin, end] = part_of(panels(s_.H), share_.share, share_.shares);
        for (Index p = begin; p < end; ++p)
            for (Index gate = 0; gate < 3; ++gate) {
                const Index hidden_slot = after_ ? (gate + 1) % 3 : gate;  // r z n are the slots 1 2 0 of hn r z
                if (call_.dweight_ih && space_.packs)
                    write_transposed(call_.dweight_ih, space_.dweight_ih, space_.ih_rows, gate, gate, s_.I, p);
                if (call_.dweight_hh && space_.packs)
                    write_transposed(call_.dweight_hh, space_.dweight_hh, space_.hh_rows, gate, hidden_slot, s_.H, p);
                const Index input_bias = row_.r + gate * row_.slot;
                const Index hidden_bias = after_ ? hidden_slot * row_.slot : input_bias;
                if (call_.dbias_ih) write_bias(call_.dbias_ih, gate, input_bias, p);
                if (call_.dbias_hh) write_bias(call_.dbias_hh, gate, hidden_bias, p);
            }
    }

    // sums: of each group `rows` rows, of which `depth` are used.
    void write_transposed(Number* weights, const float* sums, Index rows, Index gate, Index slot, Index depth,
                          Index p) const {
        const Index used = lanes_used(s_.H, p), stride = 3 * row_.slot;
        Number* to = weights + (gate * s_.H + p * lanes) * depth;
        for (Index i = 0; i < depth; i += lanes) {
            const Index count = std::min<Index>(lanes, depth - i);
            Vec square[lanes] = {};
            for (int group = 0; group < share_.groups; ++group)
                for (Index k = 0; k < count; ++k)
                    square[k] += load(sums + (group * rows + i + k) * stride + slot * row_.slot + p * lanes);
            transpose(square);
            for (Index lane = 0; lane < used; ++lane) store_first(to + lane * depth + i, square[lane], count);
        }
    }

    void write_bias(Number* bias, Index gate, Index offset, Index p) const {
        Vec sum{};
        for (int group = 0; group < share_.groups; ++group)
            sum += load(space_.dbias + group * row_.width + offset + p * lanes);
        store_first(bias + gate * s_.H + p * lanes, sum, lanes_used(s_.H, p));
    }

    const GruBackwardOf<Number>& call_;
    const BackwardSpace<Arithmetic>& space_;
    const Share& share_;
    const GruShape& s_;
    const bool after_;
    const GateRow row_;
    float* dweight_ih_;
    float* dweight_hh_;
    float* dbias_;
    const typename Arithmetic::Gates dgates_;
    float* dh_;
    Number* reset_state_;
    typename Arithmetic::RowSums row_sums_;
    const Number** x_rows_;
    Number** dx_rows_;
    const Number** state_rows_;
    const Number** reset_rows_;
};

}  // namespace
}  // namespace gatewise
