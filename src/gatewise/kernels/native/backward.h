// The backward sweep: the derivative of each numbered equation of kernels/reference.py, last equation first.
#pragma once

#include "plan.h"

namespace gatewise {
namespace {

// What the threads of a backward call share, and what each group has of its own.
struct BackwardSpace {
    // Packed weights: every panel, or for a sequence of one step the panels that each thread has in hand.
    float* weight_ih;  // panels of I columns: [panel][slots r z n][H][lanes]
    float* weight_hh;  // panels of H columns: [panel][slots hn r z, or r z n][H][lanes]
    // Of each group: its part of what is summed over the batch, transposed, so that the long side is the vectors' own.
    float* dweight_ih;  // (I, slots r z n)
    float* dweight_hh;  // (H, slots hn r z, or r z n)
    float* dbias;       // one gates' row
    // Of each group: the state of the sweep.
    float* dgates;       // gradients of a chunk's gates before their activation
    float* dh;           // (rows, slot): gradient of the state
    float* reset_state;  // before: r * h of a chunk
    // Of each thread: pointers to rows.
    const float** x_rows;
    const float** state_rows;
    const float** reset_rows;
    const float** gradient_rows;
    Barrier* barriers;  // one for everyone, one a group
    Index rows, steps;  // most rows of a group, most steps of a chunk

    BackwardSpace(Arena& arena, const GruShape& s, Grid grid) {
        const bool before = s.reset == Reset::before;
        const GateRow row = saved_row(s);
        const Index threads = grid.groups * grid.members;
        rows = most_rows(s, grid);
        steps = chunk_steps(s, rows, row.width);
        const bool one_step = s.T == 1;
        const Index in_hand = threads * panels_in_hand * lanes;
        weight_ih = arena.take((one_step ? in_hand : padded(s.I)) * 3 * s.H);
        weight_hh = arena.take((one_step ? in_hand : row.slot) * 3 * s.H);
        dweight_ih = arena.take(one_step ? 0 : grid.groups * s.I * 3 * row.slot);
        dweight_hh = arena.take(one_step ? 0 : grid.groups * s.H * 3 * row.slot);
        dbias = arena.take(grid.groups * row.width);
        dgates = arena.take(grid.groups * steps * rows * row.width);
        dh = arena.take(grid.groups * rows * row.slot);
        reset_state = arena.take(before ? grid.groups * steps * rows * row.slot : 0);
        x_rows = arena.take<const float*>(threads * steps * rows);
        state_rows = arena.take<const float*>(threads * steps * rows);
        reset_rows = arena.take<const float*>(before ? threads * steps * rows : 0);
        gradient_rows = arena.take<const float*>(one_step ? threads * rows : 0);
        barriers = arena.take<Barrier>(1 + grid.groups);
    }
};

class BackwardSweep {
  public:
    BackwardSweep(const GruBackward& call, const BackwardSpace& space, const Share& share)
        : call_(call), space_(space), share_(share), s_(call.shape), after_(s_.reset == Reset::after),
          one_step_(s_.T == 1), row_(saved_row(s_)),
          dweight_ih_(space.dweight_ih + share.group * s_.I * 3 * row_.slot),
          dweight_hh_(space.dweight_hh + share.group * s_.H * 3 * row_.slot),
          dbias_(space.dbias + share.group * row_.width),
          dgates_(space.dgates + share.group * space.steps * space.rows * row_.width),
          dh_(space.dh + share.group * space.rows * row_.slot),
          reset_state_(space.reset_state + share.group * space.steps * space.rows * row_.slot),
          x_rows_(space.x_rows + share.thread * space.steps * space.rows),
          state_rows_(space.state_rows + share.thread * space.steps * space.rows),
          reset_rows_(space.reset_rows + share.thread * space.steps * space.rows) {}

    void run() {
        if (!one_step_) pack();
        clear_bias_sums();
        start_from_last_state();
        share_.wait_for_all();
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
            if (one_step_) {
                write_weight_gradients_of_one_step();
            } else if (end == s_.T) {
                sum_weight_gradients<false>(rows);
            } else {
                sum_weight_gradients<true>(rows);
            }
            add_bias_gradients(rows);
            write_input_gradients(begin, rows);
            share_.wait();  // everyone is done with this chunk's gradients
        }
        write_first_state_gradient();
        share_.wait_for_all();
        write_weight_gradients();
    }

  private:
    // Every panel; the threads share them.
    void pack() {
        const Index stride = 3 * s_.H * lanes;
        if (call_.dx.data) {
            const auto [begin, end] = part_of(panels(s_.I), share_.thread, share_.threads);
            pack_input_weights(space_.weight_ih + begin * stride, begin, end);
        }
        const auto [begin, end] = part_of(panels(s_.H), share_.thread, share_.threads);
        pack_state_weights(space_.weight_hh + begin * stride, begin, end);
    }

    void pack_input_weights(float* packed, Index begin, Index end) {
        const Index segment = s_.H * lanes;
        for (Index gate = 0; gate < 3; ++gate)
            pack_rows(packed + gate * segment, 3 * segment, call_.weights.ih + gate * s_.H * s_.I, s_.H, s_.I, begin, end);
    }

    void pack_state_weights(float* packed, Index begin, Index end) {
        const Index segment = s_.H * lanes;
        for (Index slot = 0; slot < 3; ++slot) {
            const Index gate = after_ ? (slot + 2) % 3 : slot;  // hn r z are the rows of n r z
            pack_rows(packed + slot * segment, 3 * segment, call_.weights.hh + gate * s_.H * s_.H, s_.H, s_.H, begin, end);
        }
    }

    // body(begin, end, packed) with packed weights for the panels [begin, end): all at once, or, where each is used only
    // once, a few at a time, packed right before.
    template <typename Pack, typename Body>
    void for_packed(float* packed, Index begin, Index end, const Pack& pack, const Body& body) {
        const Index stride = 3 * s_.H * lanes;
        if (!one_step_) return body(begin, end, packed + begin * stride);
        float* hand = packed + share_.thread * panels_in_hand * stride;
        for (Index p = begin; p < end; p += panels_in_hand) {
            const Index last = std::min(p + panels_in_hand, end);
            pack(hand, p, last);
            body(p, last, hand);
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

    void start_from_last_state() {
        for (Index b = 0; b < share_.rows(); ++b)
            for (Index p = share_.panel_begin; p < share_.panel_end; ++p) {
                const float* dhn = call_.dhn.data ? call_.dhn.at(0, share_.row_begin + b) + p * lanes : nullptr;
                store(dh_ + b * row_.slot + p * lanes, dhn ? load_first(dhn, lanes_used(s_.H, p)) : Vec{});
            }
    }

    // Points at the rows of `steps` steps from t on: step by step, the share's rows of the batch in each.
    void find_rows(Index t, Index steps) {
        Index i = 0;
        for (Index step = t; step < t + steps; ++step)
            for (Index b = share_.row_begin; b < share_.row_end; ++b, ++i) {
                x_rows_[i] = call_.x.at(step, b);
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

    void step_after(Index t, Index first, bool wanted) {
        for_units(first, [&](Index i, Index row, Index unit, Index used) {
            const float* gates = saved(t, row) + unit;
            const Vec hn = load(gates), r = load(gates + row_.r), z = load(gates + row_.z()), n = load(gates + row_.n());
            const Vec h = load_first(state_rows_[i] + unit, used);
            const Vec dh = state_gradient(t, row, unit, used);
            const Vec dn = dh * (1.0f - z) * (1.0f - n * n);  // (4), (3): of the candidate before its tanh
            float* d = dgates_ + i * row_.width + unit;
            store(d, dn * r);                                          // (3): of hn
            store(d + row_.r, dn * hn * r * (1.0f - r));               // (3), (1)
            store(d + row_.z(), dh * (h - n) * z * (1.0f - z));        // (4), (2)
            store(d + row_.n(), dn);
            store(dh_ + row * row_.slot + unit, dh * z);               // (4)
        });
        share_.wait();  // the gates' gradients are whole
        if (wanted) multiply_back<3>(first, 0, 0, [&](Index, Index row, Index unit, Vec sum) {
            float* dh = dh_ + row * row_.slot + unit;
            store(dh, load(dh) + sum);  // (1), (2), (3)
        });
    }

    void step_before(Index t, Index first, bool wanted) {
        for_units(first, [&](Index i, Index row, Index unit, Index used) {
            const float* gates = saved(t, row) + unit;
            const Vec r = load(gates + row_.r), z = load(gates + row_.z()), n = load(gates + row_.n());
            const Vec h = load_first(state_rows_[i] + unit, used);
            const Vec dh = state_gradient(t, row, unit, used);
            float* d = dgates_ + i * row_.width + unit;
            store(d + row_.n(), dh * (1.0f - z) * (1.0f - n * n));  // (4), (3)
            store(d + row_.z(), dh * (h - n) * z * (1.0f - z));     // (4), (2)
            store(dh_ + row * row_.slot + unit, dh * z);            // (4)
            store(reset_state_ + i * row_.slot + unit, r * h);
        });
        share_.wait();  // the candidate's gradient is whole
        multiply_back<1>(first, row_.n(), 2, [&](Index i, Index row, Index unit, Vec sum) {  // sum: of r * h
            const Vec r = load(saved(t, row) + row_.r + unit);
            const Vec h = load_first(state_rows_[i] + unit, lanes_used(s_.H, unit / lanes));
            store(dgates_ + i * row_.width + row_.r + unit, sum * h * r * (1.0f - r));  // (3), (1)
            float* dh = dh_ + row * row_.slot + unit;
            store(dh, load(dh) + sum * r);  // (3)
        });
        share_.wait();  // the reset gate's gradient is whole
        if (wanted) multiply_back<2>(first, row_.r, 0, [&](Index, Index row, Index unit, Vec sum) {
            float* dh = dh_ + row * row_.slot + unit;
            store(dh, load(dh) + sum);  // (1), (2)
        });
    }

    // body(row of the chunk, row of the batch, unit, sum): the gradients of `Slots` slots from `offset` on times their
    // recurrent weights, which are the packed segments from `segment` on.
    template <int Slots, typename Body>
    void multiply_back(Index first, Index offset, Index segment, const Body& body) {
        const Index segment_size = s_.H * lanes, stride = 3 * segment_size;
        const auto pack = [&](float* packed, Index begin, Index end) { pack_state_weights(packed, begin, end); };
        const auto multiply = [&](Index begin, Index end, const float* packed) {
            for_tiles<1>(share_.rows(), begin, end, [&](auto mr, auto np, Index row, Index panel) {
                constexpr int MR = mr.value, NP = np.value;
                Tile<MR, NP, 1> tile{};
                const float* weights = packed + (panel - begin) * stride + segment * segment_size;
                for (int slot = 0; slot < Slots; ++slot) {
                    const float* rows[MR];
                    for (int m = 0; m < MR; ++m)
                        rows[m] = dgates_ + (first + row + m) * row_.width + offset + slot * row_.slot;
                    accumulate<MR, NP, 1>(tile, rows, s_.H, weights + slot * segment_size, stride);
                }
                for (int m = 0; m < MR; ++m)
                    for (int p = 0; p < NP; ++p) body(first + row + m, row + m, (panel + p) * lanes, tile[m][p][0]);
            });
        };
        for_packed(space_.weight_hh, share_.panel_begin, share_.panel_end, pack, multiply);
    }

    // Adds to the sums, or starts them.
    template <bool Add>
    void sum_weight_gradients(Index rows) {
        const Index stride = 3 * row_.slot;
        const auto sum = [&](float* sums, const float* const* left, Index depth, Index first_column, Index slots,
                             Index offset) {
            for_own_columns(0, slots, [&](Index column, Index width) {
                outer_products<Add>(sums + first_column + column, stride, left, 0, depth, dgates_ + offset + column,
                                    row_.width, rows, width * lanes);
            });
        };
        if (call_.dweight_ih) sum(dweight_ih_, x_rows_, s_.I, 0, 3, row_.r);
        if (!call_.dweight_hh) return;
        if (after_) {
            sum(dweight_hh_, state_rows_, s_.H, 0, 3, 0);
        } else {
            sum(dweight_hh_, state_rows_, s_.H, 0, 2, row_.r);
            sum(dweight_hh_, reset_rows_, s_.H, 2 * row_.slot, 1, row_.n());
        }
    }

    // With one step there is nothing to sum over time: the outer products go straight to torch's layout.
    void write_weight_gradients_of_one_step() {
        const float** left = space_.gradient_rows + share_.thread * space_.rows;
        for (Index row = 0; row < s_.B; ++row) left[row] = dgates_ + row * row_.width;
        const Index unit = share_.panel_begin * lanes, units = std::min(s_.H, share_.panel_end * lanes) - unit;
        for (Index gate = 0; gate < 3; ++gate) {
            const Index input_slot = row_.r + gate * row_.slot;
            if (call_.dweight_ih)
                outer_products<false>(call_.dweight_ih + (gate * s_.H + unit) * s_.I, s_.I, left, input_slot + unit, units,
                                      call_.x.data, call_.x.row, s_.B, s_.I);
            const Index hidden_slot = after_ ? (gate + 1) % 3 * row_.slot : input_slot;
            const bool reset = !after_ && gate == 2;
            if (call_.dweight_hh)
                outer_products<false>(call_.dweight_hh + (gate * s_.H + unit) * s_.H, s_.H, left, hidden_slot + unit,
                                      units, reset ? reset_state_ : call_.h0.data, reset ? row_.slot : call_.h0.row, s_.B,
                                      s_.H);
        }
    }

    void add_bias_gradients(Index rows) {
        if (!call_.dbias_ih && !call_.dbias_hh) return;
        for_own_columns(0, row_.width / row_.slot, [&](Index offset, Index width) {
            for (Index p = 0; p < width; ++p) {
                Vec sum = load(dbias_ + offset + p * lanes);
                for (Index i = 0; i < rows; ++i) sum += load(dgates_ + i * row_.width + offset + p * lanes);
                store(dbias_ + offset + p * lanes, sum);
            }
        });
    }

    // dx = slots r z n of the gates' gradients times W_i. A group's members share the chunk's rows, or, with one step,
    // the panels, so that none is packed twice.
    void write_input_gradients(Index t, Index rows) {
        if (!call_.dx.data) return;
        const Index segment_size = s_.H * lanes, stride = 3 * segment_size;
        const auto [first, last] = one_step_ ? std::pair{Index{0}, rows} : part_of(rows, share_.member, share_.members);
        const auto [panel_begin, panel_end] =
            one_step_ ? part_of(panels(s_.I), share_.member, share_.members) : std::pair{Index{0}, panels(s_.I)};
        const auto pack = [&](float* packed, Index begin, Index end) { pack_input_weights(packed, begin, end); };
        const auto multiply = [&, first = first, last = last](Index begin, Index end, const float* packed) {
            for_tiles<1>(last - first, begin, end, [&](auto mr, auto np, Index row, Index panel) {
                constexpr int MR = mr.value, NP = np.value;
                Tile<MR, NP, 1> tile{};
                for (int slot = 0; slot < 3; ++slot) {
                    const float* from[MR];
                    for (int m = 0; m < MR; ++m)
                        from[m] = dgates_ + (first + row + m) * row_.width + row_.r + slot * row_.slot;
                    const float* weights = packed + (panel - begin) * stride + slot * segment_size;
                    accumulate<MR, NP, 1>(tile, from, s_.H, weights, stride);
                }
                for (int m = 0; m < MR; ++m) {
                    const Index i = first + row + m;
                    float* dx = call_.dx.at(t + i / share_.rows(), share_.row_begin + i % share_.rows());
                    for (int p = 0; p < NP; ++p)
                        store_first(dx + (panel + p) * lanes, tile[m][p][0], lanes_used(s_.I, panel + p));
                }
            });
        };
        for_packed(space_.weight_ih, panel_begin, panel_end, pack, multiply);
    }

    void write_first_state_gradient() {
        if (!call_.dh0) return;
        for_units(0, [&](Index, Index row, Index unit, Index used) {
            store_first(call_.dh0 + (share_.row_begin + row) * s_.H + unit, load(dh_ + row * row_.slot + unit), used);
        });
    }

    // Sums over the groups, transposed into torch's layout; the threads share the units.
    void write_weight_gradients() {
        const auto [begin, end] = part_of(panels(s_.H), share_.thread, share_.threads);
        for (Index p = begin; p < end; ++p)
            for (Index gate = 0; gate < 3; ++gate) {
                const Index hidden_slot = after_ ? (gate + 1) % 3 : gate;  // r z n are the slots 1 2 0 of hn r z
                if (call_.dweight_ih && !one_step_) write_transposed(call_.dweight_ih, space_.dweight_ih, gate, gate, s_.I, p);
                if (call_.dweight_hh && !one_step_) write_transposed(call_.dweight_hh, space_.dweight_hh, gate, hidden_slot, s_.H, p);
                const Index input_bias = row_.r + gate * row_.slot;
                const Index hidden_bias = after_ ? hidden_slot * row_.slot : input_bias;
                if (call_.dbias_ih) write_bias(call_.dbias_ih, gate, input_bias, p);
                if (call_.dbias_hh) write_bias(call_.dbias_hh, gate, hidden_bias, p);
            }
    }

    void write_transposed(float* weights, const float* sums, Index gate, Index slot, Index depth, Index p) const {
        const Index used = lanes_used(s_.H, p), stride = 3 * row_.slot;
        float* to = weights + (gate * s_.H + p * lanes) * depth;
        for (Index i = 0; i < depth; i += lanes) {
            const Index count = std::min<Index>(lanes, depth - i);
            Vec square[lanes] = {};
            for (int group = 0; group < share_.groups; ++group)
                for (Index k = 0; k < count; ++k)
                    square[k] += load(sums + (group * depth + i + k) * stride + slot * row_.slot + p * lanes);
            transpose(square);
            for (Index lane = 0; lane < used; ++lane) store_first(to + lane * depth + i, square[lane], count);
        }
    }

    void write_bias(float* bias, Index gate, Index offset, Index p) const {
        Vec sum{};
        for (int group = 0; group < share_.groups; ++group)
            sum += load(space_.dbias + group * row_.width + offset + p * lanes);
        store_first(bias + gate * s_.H + p * lanes, sum, lanes_used(s_.H, p));
    }

    const GruBackward& call_;
    const BackwardSpace& space_;
    const Share& share_;
    const GruShape& s_;
    const bool after_, one_step_;
    const GateRow row_;
    float* dweight_ih_;
    float* dweight_hh_;
    float* dbias_;
    float* dgates_;
    float* dh_;
    float* reset_state_;
    const float** x_rows_;
    const float** state_rows_;
    const float** reset_rows_;
};

}  // namespace
}  // namespace gatewise
