// The forward sweep. Its steps bear the numbers of the equations in kernels/reference.py.
#pragma once

#include "activations.h"
#include "plan.h"

namespace gatewise {
namespace {

// What the threads of a forward call share, and what each group has of its own.
struct ForwardSpace {
    // Packed weights: every panel, or for a sequence of one step the panels that each thread has in hand.
    float* weight_ih;          // panels of r, z, n: [panel][I][3][lanes]
    float* weight_hh;          // after: panels of r, z, n: [panel][H][3][lanes]; before: of r, z
    float* weight_hn;          // before: panels of n: [panel][H][1][lanes]
    float* bias;               // what is added to the input's products, slots r z n
    float* bias_hn;            // after: what is added to hn
    float* gates;              // a chunk of gates of each group, where they are not saved
    float* reset_state;        // before: r * h of each group, (rows, slot)
    const float** x_rows;      // pointers to the rows of a chunk's input and of its gates, for each thread
    float** gate_rows;
    const float** state_rows;  // pointers to the rows of the state, for each thread
    Barrier* barriers;         // one for everyone, one a group
    Index rows, steps;         // most rows of a group, most steps of a chunk

    ForwardSpace(Arena& arena, const GruShape& s, Grid grid, bool saves) {
        const bool after = s.reset == Reset::after;
        const GateRow row(s.H, saves && after);
        const Index threads = grid.groups * grid.members;
        rows = most_rows(s, grid);
        steps = chunk_steps(s, rows, row.width);
        const Index packed = s.T == 1 ? threads * panels_in_hand * lanes : row.slot;
        weight_ih = arena.take(s.I * 3 * packed);
        weight_hh = arena.take(s.H * (after ? 3 : 2) * packed);
        weight_hn = arena.take(after ? 0 : s.H * packed);
        bias = arena.take(3 * row.slot);
        bias_hn = arena.take(row.slot);
        gates = arena.take(saves ? 0 : grid.groups * steps * rows * row.width);
        reset_state = arena.take(after ? 0 : grid.groups * rows * row.slot);
        x_rows = arena.take<const float*>(threads * steps * rows);
        gate_rows = arena.take<float*>(threads * steps * rows);
        state_rows = arena.take<const float*>(threads * rows);
        barriers = arena.take<Barrier>(1 + grid.groups);
    }
};

class ForwardSweep {
  public:
    ForwardSweep(const GruForward& call, const ForwardSpace& space, const Share& share)
        : call_(call), space_(space), share_(share), s_(call.shape), after_(s_.reset == Reset::after),
          row_(s_.H, call.saved != nullptr && after_),
          x_rows_(space.x_rows + share.thread * space.steps * space.rows),
          gate_rows_(space.gate_rows + share.thread * space.steps * space.rows),
          state_rows_(space.state_rows + share.thread * space.rows),
          reset_state_(space.reset_state + share.group * space.rows * row_.slot) {}

    void run() {
        if (s_.T == 1) {
            run_one_step();
        } else {
            run_sequence();
        }
        write_last_state();
    }

  private:
    // Panels [begin, end) whose weights are packed, the first of them at the start of what is packed.
    struct Packed {
        Index begin, end;
        const float *ih, *hh, *hn;
    };

    void run_sequence() {
        const auto [begin, end] = part_of(panels(s_.H), share_.thread, share_.threads);
        const Index gates = after_ ? 3 : 2;
        pack_input_weights(space_.weight_ih + begin * s_.I * 3 * lanes, begin, end);
        pack_state_weights(space_.weight_hh + begin * s_.H * gates * lanes, begin, end);
        if (!after_) pack_candidate_weights(space_.weight_hn + begin * s_.H * lanes, begin, end);
        share_.wait_for_all();
        const Index first = share_.panel_begin;
        const Packed all{first, share_.panel_end, space_.weight_ih + first * s_.I * 3 * lanes,
                         space_.weight_hh + first * s_.H * gates * lanes, space_.weight_hn + first * s_.H * lanes};
        for (Index t = 0; t < s_.T; t += space_.steps) {
            const Index steps = std::min(space_.steps, s_.T - t);
            find_rows(t, steps);
            project_inputs(all, steps * share_.rows());
            for (Index step = 0; step < steps; ++step) {
                float* const* gate_rows = gate_rows_ + step * share_.rows();
                find_state(t + step);
                if (after_) {
                    step_after(all, t + step, gate_rows);
                } else {
                    step_before(all, gate_rows);
                    share_.wait();  // r * h is whole
                    finish_before(all, t + step, gate_rows);
                }
                share_.wait();
            }
        }
    }

    // Each weight is used once: it is packed right before, while it is in the first cache.
    void run_one_step() {
        find_rows(0, 1);
        find_state(0);
        const Index depth = share_.thread * panels_in_hand * lanes;
        float* ih = space_.weight_ih + depth * s_.I * 3;
        float* hh = space_.weight_hh + depth * s_.H * (after_ ? 3 : 2);
        float* hn = space_.weight_hn + depth * s_.H;
        for (Index p = share_.panel_begin; p < share_.panel_end; p += panels_in_hand) {
            const Packed some{p, std::min(p + panels_in_hand, share_.panel_end), ih, hh, hn};
            pack_input_weights(ih, some.begin, some.end);
            project_inputs(some, share_.rows());
            pack_state_weights(hh, some.begin, some.end);
            if (after_) {
                step_after(some, 0, gate_rows_);
            } else {
                step_before(some, gate_rows_);
            }
        }
        share_.wait();  // after: the state is whole; before: r * h is
        if (after_) return;
        for (Index p = share_.panel_begin; p < share_.panel_end; p += panels_in_hand) {
            const Packed some{p, std::min(p + panels_in_hand, share_.panel_end), ih, hh, hn};
            pack_candidate_weights(hn, some.begin, some.end);
            finish_before(some, 0, gate_rows_);
        }
        share_.wait();
    }

    void pack_input_weights(float* packed, Index begin, Index end) {
        pack_transposed(packed, call_.weights.ih, 3, s_.H, s_.I, begin, end);
        const GruWeights& w = call_.weights;
        for (Index p = begin; p < end; ++p) {
            const Index used = lanes_used(s_.H, p), unit = p * lanes;
            const auto part = [&](const float* bias, int gate) {
                return bias ? load_first(bias + gate * s_.H + unit, used) : Vec{};
            };
            const Vec hn = part(w.bias_hh, 2);
            store(space_.bias + unit, part(w.bias_ih, 0) + part(w.bias_hh, 0));
            store(space_.bias + row_.slot + unit, part(w.bias_ih, 1) + part(w.bias_hh, 1));
            store(space_.bias + 2 * row_.slot + unit, after_ ? part(w.bias_ih, 2) : part(w.bias_ih, 2) + hn);
            store(space_.bias_hn + unit, hn);
        }
    }

    void pack_state_weights(float* packed, Index begin, Index end) {
        pack_transposed(packed, call_.weights.hh, after_ ? 3 : 2, s_.H, s_.H, begin, end);
    }

    void pack_candidate_weights(float* packed, Index begin, Index end) {
        pack_transposed(packed, call_.weights.hh + 2 * s_.H * s_.H, 1, s_.H, s_.H, begin, end);
    }

    // Points at the rows of `steps` steps from t on: step by step, the share's rows of the batch in each.
    void find_rows(Index t, Index steps) {
        float* chunk = call_.saved ? call_.saved + t * s_.B * row_.width
                                   : space_.gates + share_.group * space_.steps * space_.rows * row_.width;
        Index i = 0;
        for (Index step = 0; step < steps; ++step)
            for (Index b = share_.row_begin; b < share_.row_end; ++b, ++i) {
                x_rows_[i] = call_.x.at(t + step, b);
                gate_rows_[i] = chunk + (call_.saved ? step * s_.B + b : i) * row_.width;
            }
    }

    // Slots r, z, n of the chunk's rows = W_i x + b: the input's part of equations (1), (2), (3).
    void project_inputs(const Packed& packed, Index rows) {
        const Index stride = s_.I * 3 * lanes;
        for_tiles<3>(rows, packed.begin, packed.end, [&](auto mr, auto np, Index row, Index panel) {
            constexpr int MR = mr.value, NP = np.value;
            Tile<MR, NP, 3> tile;
            for (int p = 0; p < NP; ++p)
                for (int g = 0; g < 3; ++g) {
                    const Vec bias = load(space_.bias + g * row_.slot + (panel + p) * lanes);
                    for (int m = 0; m < MR; ++m) tile[m][p][g] = bias;
                }
            const float* weights = packed.ih + (panel - packed.begin) * stride;
            accumulate<MR, NP, 3>(tile, x_rows_ + row, s_.I, weights, stride);
            for (int m = 0; m < MR; ++m)
                for (int p = 0; p < NP; ++p)
                    for (int g = 0; g < 3; ++g)
                        store(gate_rows_[row + m] + row_.r + g * row_.slot + (panel + p) * lanes, tile[m][p][g]);
        });
    }

    void find_state(Index t) {
        for (Index b = share_.row_begin; b < share_.row_end; ++b)
            state_rows_[b - share_.row_begin] = t == 0 ? call_.h0.at(0, b) : call_.y.at(t - 1, b);
    }

    void step_after(const Packed& packed, Index t, float* const* gate_rows) {
        const Index stride = s_.H * 3 * lanes;
        const bool saves = call_.saved != nullptr;
        for_tiles<3>(share_.rows(), packed.begin, packed.end, [&](auto mr, auto np, Index row, Index panel) {
            constexpr int MR = mr.value, NP = np.value;
            Tile<MR, NP, 3> tile{};
            const float* weights = packed.hh + (panel - packed.begin) * stride;
            accumulate<MR, NP, 3>(tile, state_rows_ + row, s_.H, weights, stride);
            for (int m = 0; m < MR; ++m)
                for (int p = 0; p < NP; ++p) {
                    const Index unit = (panel + p) * lanes, used = lanes_used(s_.H, panel + p);
                    float* gates = gate_rows[row + m] + unit;
                    const Vec h = load_first(state_rows_[row + m] + unit, used);
                    const Vec r = sigmoid(load(gates + row_.r) + tile[m][p][0]);    // (1)
                    const Vec z = sigmoid(load(gates + row_.z()) + tile[m][p][1]);  // (2)
                    const Vec hn = load(space_.bias_hn + unit) + tile[m][p][2];
                    const Vec n = tanh(load(gates + row_.n()) + r * hn);            // (3)
                    store_first(state(t, row + m) + unit, n + z * (h - n), used);   // (4)
                    if (saves) {
                        store(gates, hn);
                        store(gates + row_.r, r);
                        store(gates + row_.z(), z);
                        store(gates + row_.n(), n);
                    }
                }
        });
    }

    // The gates, and r * h.
    void step_before(const Packed& packed, float* const* gate_rows) {
        const Index stride = s_.H * 2 * lanes;
        for_tiles<2>(share_.rows(), packed.begin, packed.end, [&](auto mr, auto np, Index row, Index panel) {
            constexpr int MR = mr.value, NP = np.value;
            Tile<MR, NP, 2> tile{};
            const float* weights = packed.hh + (panel - packed.begin) * stride;
            accumulate<MR, NP, 2>(tile, state_rows_ + row, s_.H, weights, stride);
            for (int m = 0; m < MR; ++m)
                for (int p = 0; p < NP; ++p) {
                    const Index unit = (panel + p) * lanes;
                    float* gates = gate_rows[row + m] + unit;
                    const Vec h = load_first(state_rows_[row + m] + unit, lanes_used(s_.H, panel + p));
                    const Vec r = sigmoid(load(gates + row_.r) + tile[m][p][0]);           // (1)
                    store(gates + row_.r, r);
                    store(gates + row_.z(), sigmoid(load(gates + row_.z()) + tile[m][p][1]));  // (2)
                    store(reset_state_ + (row + m) * row_.slot + unit, r * h);
                }
        });
    }

    // The candidate and the state, from the whole of r * h.
    void finish_before(const Packed& packed, Index t, float* const* gate_rows) {
        const Index stride = s_.H * lanes;
        for_tiles<1>(share_.rows(), packed.begin, packed.end, [&](auto mr, auto np, Index row, Index panel) {
            constexpr int MR = mr.value, NP = np.value;
            const float* reset_rows[MR];
            for (int m = 0; m < MR; ++m) reset_rows[m] = reset_state_ + (row + m) * row_.slot;
            Tile<MR, NP, 1> tile{};
            accumulate<MR, NP, 1>(tile, reset_rows, s_.H, packed.hn + (panel - packed.begin) * stride, stride);
            for (int m = 0; m < MR; ++m)
                for (int p = 0; p < NP; ++p) {
                    const Index unit = (panel + p) * lanes, used = lanes_used(s_.H, panel + p);
                    float* gates = gate_rows[row + m] + unit;
                    const Vec h = load_first(state_rows_[row + m] + unit, used);
                    const Vec z = load(gates + row_.z());
                    const Vec n = tanh(load(gates + row_.n()) + tile[m][p][0]);    // (3)
                    store_first(state(t, row + m) + unit, n + z * (h - n), used);  // (4)
                    store(gates + row_.n(), n);
                }
        });
    }

    float* state(Index t, Index row) const { return call_.y.at(t, share_.row_begin + row); }

    // The group is past its last barrier: every unit of its rows is there.
    void write_last_state() {
        if (share_.member != 0) return;
        for (Index b = share_.row_begin; b < share_.row_end; ++b)
            std::copy_n(call_.y.at(s_.T - 1, b), s_.H, call_.hn + b * s_.H);
    }

    const GruForward& call_;
    const ForwardSpace& space_;
    const Share& share_;
    const GruShape& s_;
    const bool after_;
    const GateRow row_;
    const float** x_rows_;
    float** gate_rows_;
    const float** state_rows_;
    float* reset_state_;
};

}  // namespace
}  // namespace gatewise
