// The forward sweep. Its steps bear the numbers of the equations in kernels/reference.py.
//
// `Arithmetic` says how numbers are kept and products made: Float32 (float32.h) or AmxBfloat16 (amx.h).
#pragma once

#include "plan.h"

namespace gatewise {
namespace {

// What the threads of a forward call share, and what each group has of its own.
template <typename Arithmetic>
struct ForwardSpace {
    // Packed weights: every panel, or for a sequence of one step the panels that each thread has in hand.
    typename Arithmetic::Weight* weight_ih;  // panels of r, z, n
    typename Arithmetic::Weight* weight_hh;  // after: panels of r, z, n; before: of r, z
    typename Arithmetic::Weight* weight_hn;  // before: panels of n
    float* bias;          // what is added to the input's products, slots r z n
    float* bias_hn;       // after: what is added to hn
    float* gates;         // a chunk of gates of each group, where they are not saved
    float* reset_state;   // before: r * h of each group
    float* state;         // the state of each group
    float* x_rows;        // the rows of a chunk's input, for each thread
    float** gate_rows;    // pointers to the rows of its gates, for each thread
    Barrier* barriers;    // one for everyone, one a group
    Index rows, steps;    // most rows of a group, most steps of a chunk
    Index ih_panel, hh_panel, hn_panel;  // packed numbers of a panel
    Index reset_size, state_size, x_size;  // of a group, of a thread

    ForwardSpace(Arena& arena, const GruShape& s, Grid grid, bool saves) {
        using Weight = typename Arithmetic::Weight;
        const bool after = s.reset == Reset::after;
        const GateRow row(s.H, saves && after);
        const Index threads = grid.groups * grid.members;
        rows = most_rows(s, grid);
        steps = chunk_steps(s, rows, row.width);
        ih_panel = Arithmetic::panel_size(s.I, 3);
        hh_panel = Arithmetic::panel_size(s.H, after ? 3 : 2);
        hn_panel = after ? 0 : Arithmetic::panel_size(s.H, 1);
        reset_size = after ? 0 : Arithmetic::Matrix::size(rows, s.H);
        state_size = Arithmetic::State::size(s, rows, grid.members);
        x_size = Arithmetic::Inputs::size(steps * rows, s.I);
        const Index packed = s.T == 1 ? threads * panels_in_hand : panels(s.H);
        weight_ih = arena.take<Weight>(packed * ih_panel);
        weight_hh = arena.take<Weight>(packed * hh_panel);
        weight_hn = arena.take<Weight>(packed * hn_panel);
        bias = arena.take(3 * row.slot);
        bias_hn = arena.take(row.slot);
        gates = arena.take(saves ? 0 : grid.groups * steps * rows * row.width);
        reset_state = arena.take(grid.groups * reset_size);
        state = arena.take(grid.groups * state_size);
        x_rows = arena.take(threads * x_size);
        gate_rows = arena.take<float*>(threads * steps * rows);
        barriers = arena.take<Barrier>(1 + grid.groups);
    }
};

template <typename Arithmetic>
class ForwardSweep {
    using Number = typename Arithmetic::Number;
    using Weight = typename Arithmetic::Weight;

  public:
    ForwardSweep(const GruForwardOf<Number>& call, const ForwardSpace<Arithmetic>& space, const Share& share)
        : call_(call), space_(space), share_(share), s_(call.shape), after_(s_.reset == Reset::after),
          row_(s_.H, call.saved != nullptr && after_),
          x_rows_(space.x_rows + share.thread * space.x_size, s_.I),
          gate_rows_(space.gate_rows + share.thread * space.steps * space.rows),
          state_(space.state + share.group * space.state_size, call, share, space.rows),
          reset_state_(space.reset_state + share.group * space.reset_size, s_.H) {}

    void run() {
        state_.start();
        if (!after_) reset_state_.clear_padding(share_.rows(), share_.panel_end);
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
        const Weight *ih, *hh, *hn;
    };

    void run_sequence() {
        const auto [begin, end] = part_of(panels(s_.H), share_.thread, share_.threads);
        pack_input_weights(space_.weight_ih + begin * space_.ih_panel, begin, end);
        pack_state_weights(space_.weight_hh + begin * space_.hh_panel, begin, end);
        if (!after_) pack_candidate_weights(space_.weight_hn + begin * space_.hn_panel, begin, end);
        share_.wait_for_all();
        const Index first = share_.panel_begin;
        const Packed all{first, share_.panel_end, space_.weight_ih + first * space_.ih_panel,
                         space_.weight_hh + first * space_.hh_panel, space_.weight_hn + first * space_.hn_panel};
        for (Index t = 0; t < s_.T; t += space_.steps) {
            const Index steps = std::min(space_.steps, s_.T - t);
            find_rows(t, steps);
            project_inputs(all, steps * share_.rows());
            for (Index step = 0; step < steps; ++step) {
                float* const* gate_rows = gate_rows_ + step * share_.rows();
                state_.find(t + step);
                if (after_) {
                    step_after(all, gate_rows);
                } else {
                    step_before(all, gate_rows);
                    share_.wait();  // r * h is whole
                    finish_before(all, gate_rows);
                }
                share_.wait();
            }
        }
    }

    // Each weight is used once: it is packed right before, while it is in the first cache.
    void run_one_step() {
        find_rows(0, 1);
        state_.find(0);
        share_.wait();  // the first state is whole
        const Index hand = share_.thread * panels_in_hand;
        Weight* ih = space_.weight_ih + hand * space_.ih_panel;
        Weight* hh = space_.weight_hh + hand * space_.hh_panel;
        Weight* hn = space_.weight_hn + hand * space_.hn_panel;
        for (Index p = share_.panel_begin; p < share_.panel_end; p += panels_in_hand) {
            const Packed some{p, std::min(p + panels_in_hand, share_.panel_end), ih, hh, hn};
            pack_input_weights(ih, some.begin, some.end);
            project_inputs(some, share_.rows());
            pack_state_weights(hh, some.begin, some.end);
            if (after_) {
                step_after(some, gate_rows_);
            } else {
                step_before(some, gate_rows_);
            }
        }
        share_.wait();  // after: the state is whole; before: r * h is
        if (after_) return;
        for (Index p = share_.panel_begin; p < share_.panel_end; p += panels_in_hand) {
            const Packed some{p, std::min(p + panels_in_hand, share_.panel_end), ih, hh, hn};
            pack_candidate_weights(hn, some.begin, some.end);
            finish_before(some, gate_rows_);
        }
        share_.wait();
    }

    void pack_input_weights(Weight* packed, Index begin, Index end) {
        Arithmetic::pack(packed, call_.weights.ih, 3, s_.H, s_.I, begin, end);
        const GruWeightsOf<Number>& w = call_.weights;
        for (Index p = begin; p < end; ++p) {
            const Index used = lanes_used(s_.H, p), unit = p * lanes;
            const auto part = [&](const Number* bias, int gate) {
                return bias ? load_first(bias + gate * s_.H + unit, used) : Vec{};
            };
            const Vec hn = part(w.bias_hh, 2);
            store(space_.bias + unit, part(w.bias_ih, 0) + part(w.bias_hh, 0));
            store(space_.bias + row_.slot + unit, part(w.bias_ih, 1) + part(w.bias_hh, 1));
            store(space_.bias + 2 * row_.slot + unit, after_ ? part(w.bias_ih, 2) : part(w.bias_ih, 2) + hn);
            store(space_.bias_hn + unit, hn);
        }
    }

    void pack_state_weights(Weight* packed, Index begin, Index end) {
        Arithmetic::pack(packed, call_.weights.hh, after_ ? 3 : 2, s_.H, s_.H, begin, end);
    }

    void pack_candidate_weights(Weight* packed, Index begin, Index end) {
        Arithmetic::pack(packed, call_.weights.hh + 2 * s_.H * s_.H, 1, s_.H, s_.H, begin, end);
    }

    // Points at the rows of `steps` steps from t on: step by step, the share's rows of the batch in each.
    void find_rows(Index t, Index steps) {
        float* chunk = call_.saved ? call_.saved + t * s_.B * row_.width
                                   : space_.gates + share_.group * space_.steps * space_.rows * row_.width;
        Index i = 0;
        for (Index step = 0; step < steps; ++step)
            for (Index b = share_.row_begin; b < share_.row_end; ++b, ++i) {
                x_rows_.set(i, call_.x.at(t + step, b));
                gate_rows_[i] = chunk + (call_.saved ? step * s_.B + b : i) * row_.width;
            }
    }

    // In what follows the lambdas have copies of all that they use: of what they reach through `this` the compiler
    // believes that each store can change it (a third of the time at H=64 in bfloat16).

    // Slots r, z, n of the chunk's rows = W_i x + b: the input's part of equations (1), (2), (3).
    void project_inputs(const Packed& packed, Index rows) {
        const auto put = [at = row_, bias = space_.bias, gate_rows = gate_rows_](Index row, Index panel,
                                                                                const Vec* products) {
            float* gates = gate_rows[row] + at.r + panel * lanes;
            for (int g = 0; g < 3; ++g)
                store(gates + g * at.slot, load(bias + panel * lanes + g * at.slot) + products[g]);
        };
        Arithmetic::template multiply<3>(x_rows_, 0, rows, s_.I, packed.ih, packed.begin, packed.end, put);
    }

    void step_after(const Packed& packed, float* const* gate_rows) {
        const auto step = [at = row_, state = state_, bias_hn = space_.bias_hn, saves = call_.saved != nullptr,
                           hidden_size = s_.H, gate_rows](Index row, Index panel, const Vec* products) {
            const Index unit = panel * lanes, used = lanes_used(hidden_size, panel);
            float* gates = gate_rows[row] + unit;
            const Vec h = state.at(row, unit, used);
            const Vec r = Arithmetic::sigmoid(load(gates + at.r) + products[0]);    // (1)
            const Vec z = Arithmetic::sigmoid(load(gates + at.z()) + products[1]);  // (2)
            const Vec hn = load(bias_hn + unit) + products[2];
            const Vec n = Arithmetic::tanh(load(gates + at.n()) + r * hn);          // (3)
            state.set(row, unit, used, n + z * (h - n));                            // (4)
            if (saves) {
                store(gates, hn);
                store(gates + at.r, r);
                store(gates + at.z(), z);
                store(gates + at.n(), n);
            }
        };
        multiply_state<3>(state_.rows(), packed.hh, packed, step);
    }

    // The gates, and r * h.
    void step_before(const Packed& packed, float* const* gate_rows) {
        const auto step = [at = row_, state = state_, reset_state = reset_state_, hidden_size = s_.H, gate_rows](
                              Index row, Index panel, const Vec* products) {
            const Index unit = panel * lanes, used = lanes_used(hidden_size, panel);
            float* gates = gate_rows[row] + unit;
            const Vec h = state.at(row, unit, used);
            const Vec r = Arithmetic::sigmoid(load(gates + at.r) + products[0]);               // (1)
            store(gates + at.r, r);
            store(gates + at.z(), Arithmetic::sigmoid(load(gates + at.z()) + products[1]));    // (2)
            reset_state.set(row, unit, used, r * h);
        };
        multiply_state<2>(state_.rows(), packed.hh, packed, step);
    }

    // The candidate and the state, from the whole of r * h.
    void finish_before(const Packed& packed, float* const* gate_rows) {
        const auto step = [at = row_, state = state_, hidden_size = s_.H, gate_rows](Index row, Index panel,
                                                                                    const Vec* products) {
            const Index unit = panel * lanes, used = lanes_used(hidden_size, panel);
            float* gates = gate_rows[row] + unit;
            const Vec h = state.at(row, unit, used);
            const Vec z = load(gates + at.z());
            const Vec n = Arithmetic::tanh(load(gates + at.n()) + products[0]);  // (3)
            state.set(row, unit, used, n + z * (h - n));                         // (4)
            store(gates + at.n(), n);
        };
        multiply_state<1>(reset_state_, packed.hn, packed, step);
    }

    // body(row, panel, products) for the share's rows, of which `rows` holds the factors.
    template <int G, typename Rows, typename Body>
    void multiply_state(const Rows& rows, const Weight* weights, const Packed& packed, const Body& body) {
        Arithmetic::template multiply<G>(rows, 0, share_.rows(), s_.H, weights, packed.begin, packed.end, body);
    }

    // The group is past its last barrier: every unit of its rows is there.
    void write_last_state() {
        if (share_.member != 0) return;
        for (Index b = share_.row_begin; b < share_.row_end; ++b)
            std::copy_n(call_.y.at(s_.T - 1, b), s_.H, call_.hn + b * s_.H);
    }

    const typename Arithmetic::Session session_{};
    const GruForwardOf<Number>& call_;
    const ForwardSpace<Arithmetic>& space_;
    const Share& share_;
    const GruShape& s_;
    const bool after_;
    const GateRow row_;
    const typename Arithmetic::Inputs x_rows_;
    float** gate_rows_;
    typename Arithmetic::State state_;
    const typename Arithmetic::Matrix reset_state_;
};

}  // namespace
}  // namespace gatewise
