// The backward sweep: the derivative of each numbered equation of kernels/reference.py, last equation first.
#pragma once

#include "backward_space.h"

namespace gatewise {
namespace {

// `Arithmetic` as in forward.h.
template <typename Cell, typename Arithmetic>
class BackwardSweep {
    using Number = typename Arithmetic::Number;
    using Weight = typename Arithmetic::Weight;
    static constexpr int gates = Cell::gates;

  public:
    BackwardSweep(const BackwardOf<Number>& call, const BackwardSpace<Cell, Arithmetic>& space, const Share& share)
        : call_(call), space_(space), share_(share), s_(call.shape), row_(gradient_row<Cell>(s_)),
          saved_row_(saved_row<Cell>(s_)),
          dweight_ih_(space.dweight_ih + share.group * space.ih_rows * gates * row_.slot),
          dweight_hh_(space.dweight_hh + share.group * space.hh_rows * gates * row_.slot),
          dweight_hr_(space.dweight_hr + (projects<Cell> ? share.group * s_.state() * row_.slot : 0)),
          dbias_(space.dbias + share.group * row_.width),
          dgates_(space.dgates + share.group * space.gates_size, row_, s_.H),
          dh_(space.dh + share.group * space.rows * row_.slot),
          dc_(space.dc + (Cell::has_second_state ? share.group * space.rows * row_.slot : 0)),
          restarts_(space.restarts + (s_.has_resets() ? 2 * share.group * space.rows * row_.slot : 0)),
          factor_(space.factor + share.group * space.steps * space.rows * row_.slot),
          dstates_(space.dstates + share.group * space.states_size, GateRow(s_.state(), 1), s_.state()),
          row_sums_(space.sums + share.share * space.sums_size, share, row_, space.steps * space.rows),
          x_rows_(space.x_rows + share.share * space.steps * space.rows),
          dx_rows_(space.dx_rows + share.share * space.steps * space.rows),
          state_rows_(space.state_rows + share.share * space.steps * space.rows),
          seen_rows_(space.seen_rows + share.share * space.steps * space.rows),
          factor_rows_(space.factor_rows + share.share * space.steps * space.rows),
          dstate_rows_(space.dstate_rows + share.share * space.steps * space.rows),
          row_steps_(space.row_steps + share.share * space.steps * space.rows),
          extension_(call, *space.extension, share, space.rows) {
        if (!space.replays) return;
        const Sequence<Number> y{const_cast<Number*>(call.y.data), call.y.step, call.y.row};  // only read
        again_.emplace(ForwardOf<Number>{s_, call.weights, call.x, call.h0, call.c0, y, nullptr, nullptr, nullptr, {}, 0,
                                         space.discarded, nullptr, call.regularisation});
        forward_.emplace(*again_, *space.forward, share, true);
    }

    BackwardSweep(const BackwardSweep&) = delete;  // forward_ points at again_

    // The three parts of a call; between them, all shares wait for each other.
    void prepare() {
        if (space_.packs) pack();
        if (forward_) forward_->prepare();
        if constexpr (is_extended<Cell>) {
            const auto [begin, end] = part_of(panels(s_.H), share_.share, share_.shares);
            extension_.prepare(begin, end);
        }
        clear_bias_sums();
        dgates_.clear_padding(space_.steps * share_.rows(), share_.panel_end);
        start_from_last_states();
    }

    void sweep() {
        for (Index end = s_.T; end > 0; end -= chunk_of(end)) {
            const Index begin = end - chunk_of(end), rows = find_rows(begin, end);
            Index first = rows;
            for (Index t = end - 1; t >= begin; --t) {
                const Index count = rows_at(s_, share_, t);
                first -= count;
                const bool wanted = t > 0 || call_.dh0 != nullptr;
                if constexpr (is_extended<Cell>) {
                    extended_products(t, first, count, wanted);
                } else if constexpr (projects<Cell>) {
                    projected_products(first, count, wanted);
                } else if constexpr (Cell::has_second_product) {
                    two_products(first, count, wanted);
                } else {
                    one_product(first, count, wanted);
                }
                end_restarted_rows(t, count);
                if constexpr (is_extended<Cell>) share_.wait();  // the state's gradient is whole
            }
            if constexpr (!Cell::has_recurrent_weights) share_.wait();  // the gates' gradients are whole
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
        write_first_state_gradients();
    }

    void finish() { write_summed_gradients(); }

  private:
    // Steps of the chunk that ends before step `end`. All begin at a multiple of as many as fit.
    Index chunk_of(Index end) const { return (end - 1) % space_.steps + 1; }

    // Every panel; the threads share them.
    void pack() {
        const auto pack = [&](Weight* packed, const Number* matrix, Index columns, auto gate_of) {
            const auto [begin, end] = part_of(panels(columns), share_.share, share_.shares);
            const Index panel = gates * space_.segment;
            for (int slot = 0; slot < gates; ++slot)
                Arithmetic::pack_back(packed + begin * panel + slot * space_.segment, panel,
                                      matrix + gate_of(slot) * s_.H * columns, s_.H, columns, begin, end);
        };
        if (call_.dx.data) pack(space_.weight_ih, call_.weights.ih, s_.I, [](int slot) { return slot; });
        if constexpr (Cell::has_recurrent_weights)
            pack(space_.weight_hh, call_.weights.hh, s_.state(), [](int slot) { return Cell::gate_of(slot); });
        if constexpr (projects<Cell>) {
            const auto [begin, end] = part_of(panels(s_.H), share_.share, share_.shares);
            const Index panel = Arithmetic::segment_size(s_.state());
            Arithmetic::pack_back(space_.weight_hr + begin * panel, panel, call_.weights.hr, s_.state(), s_.H, begin,
                                  end);
        }
    }

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

    // body(row of the batch, unit, used): the units of the share in each of its rows, or of the first `count` ones.
    template <typename Body>
    void for_units(Index count, const Body& body) const {
        for (Index row = 0; row < count; ++row)
            for (Index p = share_.panel_begin; p < share_.panel_end; ++p) body(row, p * lanes, lanes_used(s_.H, p));
    }

    // The same of the state's units.
    template <typename Body>
    void for_state_units(Index count, const Body& body) const {
        for (Index row = 0; row < count; ++row)
            for (Index p = share_.state_begin; p < share_.state_end; ++p)
                body(row, p * lanes, lanes_used(s_.state(), p));
    }

    float* restarts(int state) const { return restarts_ + state * space_.rows * row_.slot; }

    void start_from_last_states() {
        const auto start = [&](float* gradient, const Sequence<const Number>& last, int state) {
            return [=](Index row, Index unit, Index used) {
                const Number* from = last.data ? last.at(0, s_.place(share_.row_begin + row)) + unit : nullptr;
                store(gradient + row * row_.slot + unit, from ? load_first(from, used) : Vec{});
                if (s_.has_resets()) store(restarts(state) + row * row_.slot + unit, Vec{});
            };
        };
        for_state_units(share_.rows(), start(dh_, call_.dhn, 0));
        if constexpr (Cell::has_second_state) for_units(share_.rows(), start(dc_, call_.dcn, 1));
    }

    // Points at the rows of the steps [begin, end): step by step, those of the share's rows that take it. Returns how
    // many they are.
    Index find_rows(Index begin, Index end) {
        const float* again = nullptr;
        if (forward_) again = forward_->replay(begin, end, begin / std::max<Index>(call_.every, 1), call_.checkpoints);
        // Copies, for the reason that forward.h gives.
        const Shape shape = s_;
        const BackwardOf<Number> call = call_;
        const Index row_begin = share_.row_begin, slot = row_.slot, width = saved_row_.width;
        const auto saved_at = [=](Index t, Index b) { return call.saved + (shape.offset(t) + b) * width; };
        const Number **x_rows = x_rows_, **state_rows = state_rows_, **factor_rows = factor_rows_;
        Number** const dx_rows = dx_rows_;
        RowStep<Number>* const row_steps = row_steps_;
        Index i = 0, before = 0;  // before: the first row of the step before
        for (Index t = begin; t < end; ++t) {
            const Index row_end = row_begin + rows_at(shape, share_, t), first = i;
            for (Index b = row_begin; b < row_end; ++b, ++i) {
                const bool restarts = t == 0 || (shape.has_resets() && shape.resets(t, b));
                x_rows[i] = shape.at(call.x, t, b);
                if (call.dx.data) dx_rows[i] = shape.at(call.dx, t, b);
                state_rows[i] = restarts ? call.h0.at(0, shape.place(b)) : shape.at(call.y, t - 1, b);
                RowStep<Number>& step = row_steps[i];
                step.saved = again ? again + i * width : saved_at(t, b);
                step.dy = call.dy.data ? shape.at(call.dy, t, b) : nullptr;
                if constexpr (is_extended<Cell>)
                    seen_rows_[i] = extension_.masks() ? extension_.masked(i) : state_rows[i];
                if constexpr (has_factor<Cell>) factor_rows[i] = factor_ + i * slot;
                if constexpr (projects<Cell>) dstate_rows_[i] = dstates_.row(i);
                if constexpr (Cell::has_second_state) {
                    if (restarts) step.c = call.c0.at(0, shape.place(b));
                    else if (!again) step.c = saved_at(t - 1, b) + Cell::second_state * slot;
                    else if (t == begin) step.c = call.checkpoints.at(t / call.every, b);
                    else step.c = row_steps[before + b - row_begin].saved + Cell::second_state * slot;
                }
            }
            before = first;
        }
        return i;
    }

    // What the derivative of a step of one row has: pointers, apart from what else can change while it is computed.
    struct RowUnits {
        const float* saved;
        const Number* state;
        const Number* dy;
        const float* c;
        float *dh, *dc;
        Index slot;

        GATEWISE_INLINE BackwardUnits at(Index unit, Index used) const {
            BackwardUnits units;
            units.gates = saved + unit;
            units.slot = slot;
            units.h = load_first(state + unit, used);
            // What came back from the step after, and what the output's user gives.
            units.dh = dy ? load(dh + unit) + load_first(dy + unit, used) : load(dh + unit);
            if constexpr (Cell::has_second_state) {
                units.c = load_first(c + unit, used);
                units.dc = dc + unit;
            }
            return units;
        }
    };

    // body(units, row of the chunk, its units): the `count` rows of a step, whose first one is `first`.
    template <typename Body>
    void for_rows(Index first, Index count, const Body& body) const {
        for (Index row = 0; row < count; ++row) {
            const Index i = first + row;
            const RowStep<Number>& step = row_steps_[i];
            const RowUnits units{step.saved, state_rows_[i],       step.dy, step.c,
                                 dh_ + row * row_.slot, dc_ + row * row_.slot, saved_row_.slot};
            for (Index p = share_.panel_begin; p < share_.panel_end; ++p)
                body(units, i, p * lanes, lanes_used(s_.H, p));
        }
    }

    // The lambdas have copies of dgates_, for the reason that forward.h gives.
    void one_product(Index first, Index count, bool wanted) {
        for_rows(first, count, [dgates = dgates_](const RowUnits& row, Index i, Index unit, Index used) GATEWISE_INLINE {
            const auto set = [&](int slot, Vec v) GATEWISE_INLINE { dgates.set(i, slot, unit, used, v); };
            store(row.dh + unit, Cell::back(row.at(unit, used), set));
        });
        if constexpr (Cell::has_recurrent_weights) {
            share_.wait();  // the gates' gradients are whole
            if (wanted) multiply_recurrent(first, count, 0, gates, [dh = dh_, slot = row_.slot](
                                                                       Index, Index row, Index unit, Vec sum) GATEWISE_INLINE {
                float* to = dh + row * slot + unit;
                store(to, load(to) + sum);
            });
        }
    }

    void two_products(Index first, Index count, bool wanted) {
        for_rows(first, count, [dgates = dgates_, factor = factor_, slot = row_.slot](
                                   const RowUnits& row, Index i, Index unit, Index used) GATEWISE_INLINE {
            const auto set = [&](int slot, Vec v) GATEWISE_INLINE { dgates.set(i, slot, unit, used, v); };
            const BackwardUnits units = row.at(unit, used);
            store(row.dh + unit, Cell::back(units, set));
            store(factor + i * slot + unit, units.saved(0) * units.h);
        });
        share_.wait();  // the last gate's gradient is whole
        multiply_recurrent(first, count, gates - 1, 1, [&, dgates = dgates_](Index i, Index row, Index unit,
                                                                             Vec sum) GATEWISE_INLINE {
            const Index used = lanes_used(s_.H, unit / lanes);
            const auto set = [&](int slot, Vec v) GATEWISE_INLINE { dgates.set(i, slot, unit, used, v); };
            const Vec h = load_first(state_rows_[i] + unit, used);
            float* dh = dh_ + row * row_.slot + unit;
            store(dh, load(dh) + Cell::finish_back(row_steps_[i].saved + unit, h, sum, set));
        });
        share_.wait();  // the other gates' gradients are whole
        if (wanted) multiply_recurrent(first, count, 0, gates - 1, [dh = dh_, slot = row_.slot](
                                                                       Index, Index row, Index unit, Vec sum) GATEWISE_INLINE {
            float* to = dh + row * slot + unit;
            store(to, load(to) + sum);
        });
    }

    void projected_products(Index first, Index count, bool wanted) {
        for_state_units(count, [&](Index row, Index unit, Index used) {
            const Index i = first + row;
            const Number* dy = row_steps_[i].dy;
            const Vec dh = load(dh_ + row * row_.slot + unit);
            dstates_.set(i, 0, unit, used, dy ? dh + load_first(dy + unit, used) : dh);
        });
        share_.wait();  // the states' gradients are whole
        multiply_projection(first, count, [&, dgates = dgates_, factor = factor_, slot = row_.slot](
                                              Index i, Index panel, Vec sum) GATEWISE_INLINE {
            const Index unit = panel * lanes, used = lanes_used(s_.H, panel);
            const auto set = [&](int slot, Vec v) GATEWISE_INLINE { dgates.set(i, slot, unit, used, v); };
            const RowStep<Number>& step = row_steps_[i];
            const BackwardUnits units{step.saved + unit, saved_row_.slot, Vec{}, load_first(step.c + unit, used), sum,
                                      dc_ + (i - first) * slot + unit};
            store(factor + i * slot + unit, Cell::shown(units));
            Cell::back(units, set);
        });
        share_.wait();  // the gates' gradients are whole
        if (wanted) multiply_recurrent(first, count, 0, gates, [dh = dh_, slot = row_.slot](Index, Index row, Index unit,
                                                                                            Vec sum) GATEWISE_INLINE {
            store(dh + row * slot + unit, sum);
        });
    }

    // body(row of the chunk, panel, sum): the gradients of a step's states times the weights of the projection.
    template <typename Body>
    void multiply_projection(Index first, Index count, const Body& body) {
        const Number* const matrices[] = {call_.weights.hr};
        const Index begin = share_.panel_begin, panel = Arithmetic::segment_size(s_.state());
        Arithmetic::multiply_back(dstates_, first, count, 0, 1,
                                  {matrices, s_.state(), s_.H, packed_at(space_.weight_hr + begin * panel), panel, begin,
                                   share_.panel_end},
                                  body);
    }

    // Either of them, for an extended cell. Its members share the rows, and then the products' panels.
    void extended_products(Index t, Index first, Index count, bool wanted) {
        const auto row_at = [&](Index row, float* sums) {
            const Index i = first + row;
            const RowStep<Number>& step = row_steps_[i];
            float* const factor = Cell::has_second_product ? factor_ + i * row_.slot : nullptr;
            return BackwardRow{t, share_.row_begin + row, step.saved, state_rows_[i], step.c, step.dy,
                               dh_ + row * row_.slot, dc_ + row * row_.slot, dgates_.row(i), extension_.masked(i),
                               factor, extension_.product(row), sums};
        };
        extension_.for_own_rows(count, [&](Index row, float* sums) { extension_.back(row_at(row, sums)); });
        share_.wait();  // the gates' gradients are whole
        if constexpr (Cell::has_second_product) {
            multiply_recurrent(first, count, gates - 1, 1, [extension = &extension_](Index, Index row, Index unit,
                                                                                     Vec sum) GATEWISE_INLINE {
                store(extension->product(row) + unit, sum);
            });
            share_.wait();  // the gradient of the second product's factor is whole
            extension_.for_own_rows(count, [&](Index row, float* sums) { extension_.finish_back(row_at(row, sums)); });
            share_.wait();  // the other gates' gradients are whole
        }
        constexpr int with_state = gates - Cell::has_second_product;
        if (wanted)
            multiply_recurrent(first, count, 0, with_state, [this](Index, Index row, Index unit, Vec sum) GATEWISE_INLINE {
                const float* m = extension_.mask(share_.row_begin + row);
                float* to = dh_ + row * row_.slot + unit;
                store(to, load(to) + (m ? load_first(m + unit, lanes_used(s_.H, unit / lanes)) * sum : sum));
            });
    }

    // Where a row began anew before step t, the gradient of its state is one of the first state.
    void end_restarted_rows(Index t, Index count) {
        if (t == 0 || !s_.has_resets()) return;
        const auto move = [&](float* gradient, float* first) {
            return [=](Index row, Index unit, Index) {
                if (!s_.resets(t, share_.row_begin + row)) return;
                const Index at = row * row_.slot + unit;
                store(first + at, load(first + at) + load(gradient + at));
                store(gradient + at, Vec{});
            };
        };
        for_state_units(count, move(dh_, restarts(0)));
        if constexpr (Cell::has_second_state) for_units(count, move(dc_, restarts(1)));
    }

    // body(row of the chunk, row of the batch, unit, sum): the gradients of some slots from `slot` on times their
    // recurrent weights, for the `count` rows of a step, whose first one is `first`.
    template <typename Body>
    void multiply_recurrent(Index first, Index count, int slot, int slots, const Body& body) {
        const auto use = [&](Index i, Index panel, Vec sum) GATEWISE_INLINE { body(i, i - first, panel * lanes, sum); };
        const Number* matrices[gates];
        for (int i = 0; i < slots; ++i) matrices[i] = call_.weights.hh + Cell::gate_of(slot + i) * s_.H * s_.state();
        const Index begin = share_.state_begin, panel = gates * space_.segment;
        const Weight* packed = space_.weight_hh + begin * panel + slot * space_.segment;
        Arithmetic::multiply_back(dgates_, first, count, slot, slots,
                                  {matrices, s_.H, s_.state(), packed_at(packed), panel, begin, share_.state_end}, use);
    }

    // Where weights are packed, if they are; else null.
    const Weight* packed_at(const Weight* packed) const { return space_.packs ? packed : nullptr; }

    // Adds to the sums, or starts them.
    template <bool Add>
    void sum_weight_gradients(Index rows) {
        row_sums_.take_right(dgates_, rows);
        // Slots from first_slot on to the columns from first_column on.
        const auto sum = [&](float* sums, const Number* const* left, Index depth, Index first_column, Index slots,
                             Index first_slot) {
            row_sums_.take_left(left, depth, rows);
            for_own_columns(0, slots, [&](Index column, Index width) {
                row_sums_.template sum<Add>(sums + first_column + column, gates * row_.slot, left, depth, rows, dgates_,
                                            first_slot * row_.slot + column, width);
            });
        };
        if (call_.dweight_ih) sum(dweight_ih_, x_rows_, s_.I, 0, gates, first_input_gradient<Cell>(s_));
        if constexpr (projects<Cell>)
            if (call_.dweight_hr) sum_projection_gradients<Add>(rows);
        if (!call_.dweight_hh) return;
        if constexpr (Cell::has_second_product) {
            sum(dweight_hh_, seen_rows_, s_.H, 0, gates - 1, 0);
            sum(dweight_hh_, factor_rows_, s_.H, (gates - 1) * row_.slot, 1, gates - 1);
        } else {
            sum(dweight_hh_, seen_rows_, s_.state(), 0, gates, 0);
        }
    }

    // The same for a projection.
    template <bool Add>
    void sum_projection_gradients(Index rows) {
        const typename Arithmetic::Gates shown(factor_, GateRow(s_.H, 1), s_.H);
        row_sums_.take_left(dstate_rows_, s_.state(), rows);
        for_own_columns(0, 1, [&](Index column, Index width) {
            row_sums_.template sum<Add>(dweight_hr_ + column, row_.slot, dstate_rows_, s_.state(), rows, shown, column,
                                        width);
        });
    }

    // All rows are in one chunk: the sums go straight to torch's layout.
    void write_weight_gradients_in_place([[maybe_unused]] Index rows) {
        if constexpr (unpacked_backward_rows<Cell, Arithmetic> > 0) {
            const Index unit = share_.panel_begin * lanes, units = std::min(s_.H, share_.panel_end * lanes) - unit;
            const auto write = [&](Number* dweights, int gate, int slot, const Number* const* left, Index depth) {
                Arithmetic::write_outer_products(dweights + (gate * s_.H + unit) * depth, dgates_,
                                                 slot * row_.slot + unit, units, left, rows, depth);
            };
            for (int i = 0; i < gates; ++i) {
                if (call_.dweight_ih) write(call_.dweight_ih, i, first_input_gradient<Cell>(s_) + i, x_rows_, s_.I);
                const bool second = Cell::has_second_product && i == gates - 1;
                if (call_.dweight_hh)
                    write(call_.dweight_hh, Cell::gate_of(i), i, second ? factor_rows_ : seen_rows_, s_.state());
            }
            if constexpr (projects<Cell>)
                if (call_.dweight_hr) {
                    const Index first = share_.state_begin * lanes, last = std::min(s_.state(), share_.state_end * lanes);
                    if (first < last)
                        Arithmetic::write_outer_products(call_.dweight_hr + first * s_.H, dstates_, first, last - first,
                                                         factor_rows_, rows, s_.H);
                }
        }
    }

    void add_bias_gradients(Index rows) {
        if (s_.normalised || (!call_.dbias_ih && !call_.dbias_hh)) return;  // normalised, its rows have added theirs
        for (Index slot = 0; slot < row_.width / row_.slot; ++slot)
            for (Index p = share_.panel_begin; p < share_.panel_end; ++p) {
                float* bias = dbias_ + slot * row_.slot + p * lanes;
                Vec sum = load(bias);
                for (Index i = 0; i < rows; ++i) sum += dgates_.at(i, slot, p * lanes);
                store(bias, sum);
            }
    }

    // dx = the gates' gradients times W_i. A group's members share the chunk's rows, or, where these are few, the panels.
    void write_input_gradients(Index rows) {
        if (!call_.dx.data) return;
        const auto use = [&](Index i, Index panel, Vec sum) GATEWISE_INLINE {
            store_first(dx_rows_[i] + panel * lanes, sum, lanes_used(s_.I, panel));
        };
        const Number* matrices[gates];
        for (int gate = 0; gate < gates; ++gate) matrices[gate] = call_.weights.ih + gate * s_.H * s_.I;
        const int slot = first_input_gradient<Cell>(s_);
        const Index panel = gates * space_.segment;
        if (space_.packs) {
            const auto [first, last] = part_of(rows, share_.member, share_.members);
            Arithmetic::multiply_back(dgates_, first, last - first, slot, gates,
                                      {matrices, s_.H, s_.I, space_.weight_ih, panel, 0, panels(s_.I)}, use);
        } else {
            const auto [begin, end] = part_of(panels(s_.I), share_.member, share_.members);
            Arithmetic::multiply_back(dgates_, 0, rows, slot, gates, {matrices, s_.H, s_.I, nullptr, panel, begin, end},
                                      use);
        }
    }

    void write_first_state_gradients() {
        const auto write = [&](Number* to, Index size, const float* gradient, int state) {
            return [=](Index row, Index unit, Index used) {
                Vec sum = load(gradient + row * row_.slot + unit);
                if (s_.has_resets()) sum += load(restarts(state) + row * row_.slot + unit);
                store_first(to + s_.place(share_.row_begin + row) * size + unit, sum, used);
            };
        };
        if (call_.dh0) for_state_units(share_.rows(), write(call_.dh0, s_.state(), dh_, 0));
        if constexpr (Cell::has_second_state)
            if (call_.dc0) for_units(share_.rows(), write(call_.dc0, s_.H, dc_, 1));
    }

    // Sums over the groups, transposed into torch's layout; the threads share the units.
    void write_summed_gradients() {
        const auto [begin, end] = part_of(panels(s_.H), share_.share, share_.shares);
        for (Index p = begin; p < end; ++p)
            for (int i = 0; i < gates; ++i) {
                const int gate = Cell::gate_of(i);
                if (call_.dweight_ih && space_.packs)
                    write_transposed(call_.dweight_ih, space_.dweight_ih, space_.ih_rows, i, i, s_.I, p);
                if (call_.dweight_hh && space_.packs)
                    write_transposed(call_.dweight_hh, space_.dweight_hh, space_.hh_rows, gate, i, s_.state(), p);
                if (call_.dbias_ih) write_bias(call_.dbias_ih, i, Cell::first_gate + i, p);
                if (call_.dbias_hh) write_bias(call_.dbias_hh, gate, i, p);
            }
        if constexpr (projects<Cell>)
            if (call_.dweight_hr && space_.packs) write_projection_gradients(begin, end);
        if constexpr (is_extended<Cell>)
            if (s_.normalised) extension_.write(call_.dregularisation, begin, end);
    }

    void write_projection_gradients(Index begin, Index end) const {
        for (Index r = 0; r < s_.state(); ++r)
            for (Index p = begin; p < end; ++p) {
                Vec sum{};
                for (int group = 0; group < share_.groups; ++group)
                    sum += load(space_.dweight_hr + (group * s_.state() + r) * row_.slot + p * lanes);
                store_first(call_.dweight_hr + r * s_.H + p * lanes, sum, lanes_used(s_.H, p));
            }
    }

    // sums: of each group `rows` rows, of which `depth` are used.
    void write_transposed(Number* weights, const float* sums, Index rows, Index gate, Index slot, Index depth,
                          Index p) const {
        const Index used = lanes_used(s_.H, p), stride = gates * row_.slot;
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

    Vec bias_sum(int slot, Index unit) const {
        if constexpr (is_extended<Cell>)
            if (s_.normalised) return extension_.sum(slot, unit);
        Vec sum{};
        for (int group = 0; group < share_.groups; ++group)
            sum += load(space_.dbias + group * row_.width + slot * row_.slot + unit);
        return sum;
    }

    void write_bias(Number* bias, Index gate, int slot, Index p) const {
        const Vec sum = bias_sum(slot, p * lanes);
        store_first(bias + gate * s_.H + p * lanes, sum, lanes_used(s_.H, p));
    }

    const BackwardOf<Number>& call_;
    const BackwardSpace<Cell, Arithmetic>& space_;
    const Share& share_;
    const Shape& s_;
    const GateRow row_, saved_row_;
    float* dweight_ih_;
    float* dweight_hh_;
    float* dweight_hr_;
    float* dbias_;
    const typename Arithmetic::Gates dgates_;
    float *dh_, *dc_, *restarts_;
    Number* factor_;
    const typename Arithmetic::Gates dstates_;
    typename Arithmetic::RowSums row_sums_;
    const Number** x_rows_;
    Number** dx_rows_;
    const Number** state_rows_;
    const Number** seen_rows_;
    const Number** factor_rows_;
    const Number** dstate_rows_;
    RowStep<Number>* row_steps_;
    std::optional<ForwardOf<Number>> again_;
    std::optional<ForwardSweep<Cell, Arithmetic>> forward_;
    const BackwardExtension<Cell, Arithmetic> extension_;
};

}  // namespace
}  // namespace gatewise
