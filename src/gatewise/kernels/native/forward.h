// The forward sweep. Its steps bear the numbers of the equations in kernels/reference.py.
//
// `Arithmetic` says how numbers are kept and products made: Float32 (float32.h) or AmxBfloat16 (amx.h).
#pragma once

#include "plan.h"

namespace gatewise {
namespace {

// Sums over all bits of some weights, by which they are known again. A rotation before each addition tells the order,
// too, and a single change always changes the sums.
struct alignas(64) Fingerprint {
    typedef std::uint64_t Sums __attribute__((vector_size(sizeof(Vec))));
    Sums sums{};

    template <typename Number>
    void add(const Number* numbers, Index count) {
        const char* at = reinterpret_cast<const char*>(numbers);
        Index bytes = count * static_cast<Index>(sizeof(Number));
        Sums sum = sums;
        for (Sums next{}; bytes > 0; at += sizeof next, bytes -= static_cast<Index>(sizeof next)) {
            if (bytes < static_cast<Index>(sizeof next)) next = Sums{};
            std::memcpy(&next, at, std::min<std::size_t>(sizeof next, static_cast<std::size_t>(bytes)));
            sum = (sum << 5 | sum >> 59) + next;
        }
        sums = sum;
    }
    bool operator==(const Fingerprint& other) const { return std::memcmp(&sums, &other.sums, sizeof sums) == 0; }
};

template <typename Arithmetic>
bool packs_weights(const GruShape& s) {
    return s.T * s.B > Arithmetic::unpacked_forward_rows;
}

// The packed weights of a forward call, all panels.
template <typename Arithmetic>
struct PackedWeights {
    using Weight = typename Arithmetic::Weight;

    Index ih_panel = 0, hh_panel = 0, hn_panel = 0;  // packed numbers of a panel
    Weight* ih = nullptr;           // of r, z, n
    Weight* hh = nullptr;           // after: of r, z, n; before: of r, z
    Weight* hn = nullptr;           // before: of n
    Fingerprint* prints = nullptr;  // if they are kept: of what each panel of the three was packed from

    PackedWeights() = default;
    PackedWeights(Arena& arena, const GruShape& s, bool keeps) {
        const bool after = s.reset == Reset::after;
        ih_panel = Arithmetic::panel_size(s.I, 3);
        hh_panel = Arithmetic::panel_size(s.H, after ? 3 : 2);
        hn_panel = after ? 0 : Arithmetic::panel_size(s.H, 1);
        ih = arena.take<Weight>(panels(s.H) * ih_panel);
        hh = arena.take<Weight>(panels(s.H) * hh_panel);
        hn = arena.take<Weight>(panels(s.H) * hn_panel);
        prints = keeps ? arena.take<Fingerprint>(3 * panels(s.H)) : nullptr;
    }
};

// What the threads of a forward call share, and what each group has of its own.
template <typename Arithmetic>
struct ForwardSpace {
    const bool packs;  // the weights; else they are read where they lie
    PackedWeights<Arithmetic> packed;
    float* bias;          // what is added to the input's products, slots r z n
    float* bias_hn;       // after: what is added to hn
    float* gates;         // a chunk of gates of each group, where they are not saved
    float* reset_state;   // before: r * h of each group
    float* state;         // the state of each group
    float* x_rows;        // the rows of a chunk's input, for each thread
    float** gate_rows;    // pointers to the rows of its gates, for each thread
    Barrier* barriers;    // one a group
    Index rows, steps;    // most rows of a group, most steps of a chunk
    Index reset_size, state_size, x_size;  // of a group, of a thread

    // kept: where the packed weights are kept; null: in the arena.
    ForwardSpace(Arena& arena, const GruShape& s, Grid grid, bool saves, bool keeps, float* kept)
        : packs(packs_weights<Arithmetic>(s)) {
        Arena kept_arena(kept);
        if (packs) packed = PackedWeights<Arithmetic>(keeps ? kept_arena : arena, s, keeps);
        const bool after = s.reset == Reset::after;
        const GateRow row(s.H, saves && after);
        const Index shares = grid.shares();
        rows = most_rows(s, grid);
        steps = packs ? chunk_steps(s, grid, rows, row.width) : s.T;
        reset_size = after ? 0 : Arithmetic::Matrix::size(rows, s.H);
        state_size = Arithmetic::State::size(s, rows, grid.members);
        x_size = Arithmetic::Inputs::size(steps * rows, s.I);
        bias = arena.take(3 * row.slot);
        bias_hn = arena.take(row.slot);
        gates = arena.take(saves ? 0 : grid.groups * steps * rows * row.width);
        reset_state = arena.take(grid.groups * reset_size);
        state = arena.take(grid.groups * state_size);
        x_rows = arena.take(shares * x_size);
        gate_rows = arena.take<float*>(shares * steps * rows);
        barriers = arena.take<Barrier>(grid.groups);
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
          input_{call.weights.ih, s_.I, 3, space.packed.ih, space.packed.ih_panel},
          recurrent_{call.weights.hh, s_.H, after_ ? 3 : 2, space.packed.hh, space.packed.hh_panel},
          candidate_{call.weights.hh + 2 * s_.H * s_.H, s_.H, 1, space.packed.hn, space.packed.hn_panel},
          x_rows_(space.x_rows + share.share * space.x_size, s_.I),
          gate_rows_(space.gate_rows + share.share * space.steps * space.rows),
          state_(space.state + share.group * space.state_size, call, share, space.rows),
          reset_state_(space.reset_state + share.group * space.reset_size, s_.H) {}

    // The three parts of a call; between them, all shares wait for each other.
    void prepare() {
        state_.start();
        if (!after_) reset_state_.clear_padding(share_.rows(), share_.panel_end);
        prepare_weights();
    }

    void sweep() {
        for (Index t = 0; t < s_.T; t += space_.steps) {
            const Index steps = std::min(space_.steps, s_.T - t);
            find_rows(t, steps);
            project_inputs(steps * share_.rows());
            for (Index step = 0; step < steps; ++step) {
                float* const* gate_rows = gate_rows_ + step * share_.rows();
                state_.find(t + step);
                if (after_) {
                    step_after(gate_rows);
                } else {
                    step_before(gate_rows);
                    share_.wait();  // r * h is whole
                    finish_before(gate_rows);
                }
                share_.wait();
            }
        }
    }

    void finish() { write_last_state(); }

  private:
    // Weights of some gates: as the layer keeps them, and packed.
    struct Weights {
        const Number* matrix;
        Index depth, gates;
        Weight* packed;
        Index panel;  // packed numbers of a panel
    };

    // The threads share the panels.
    void prepare_weights() {
        const auto [begin, end] = part_of(panels(s_.H), share_.share, share_.shares);
        sum_biases(begin, end);
        Fingerprint* prints = space_.packed.prints;
        for (const Weights& w : {input_, recurrent_, candidate_}) {
            if (w.panel == 0) continue;
            for (Index p = begin; p < end; ++p)
                if (!prints || is_new(prints[p], w, p))
                    Arithmetic::pack(w.packed + p * w.panel, w.matrix, w.gates, s_.H, w.depth, p, p + 1);
            if (prints) prints += panels(s_.H);
        }
    }

    // Whether a panel's weights are not those that it was packed from; the fingerprint becomes theirs.
    bool is_new(Fingerprint& print, const Weights& w, Index p) const {
        Fingerprint now;
        for (Index gate = 0; gate < w.gates; ++gate)
            now.add(w.matrix + (gate * s_.H + p * lanes) * w.depth, lanes_used(s_.H, p) * w.depth);
        if (now == print) return false;
        print = now;
        return true;
    }

    // What is added to the gates' products.
    void sum_biases(Index begin, Index end) {
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
    void project_inputs(Index rows) {
        const auto put = [at = row_, bias = space_.bias, gate_rows = gate_rows_](Index row, Index panel,
                                                                                const Vec* products) GATEWISE_INLINE {
            float* gates = gate_rows[row] + at.r + panel * lanes;
            for (int g = 0; g < 3; ++g)
                store(gates + g * at.slot, load(bias + panel * lanes + g * at.slot) + products[g]);
        };
        multiply<3>(x_rows_, rows, input_, put);
    }

    void step_after(float* const* gate_rows) {
        const auto step = [at = row_, state = state_, bias_hn = space_.bias_hn, saves = call_.saved != nullptr,
                           hidden_size = s_.H, gate_rows](Index row, Index panel, const Vec* products) GATEWISE_INLINE {
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
        multiply<3>(state_.rows(), share_.rows(), recurrent_, step);
    }

    // The gates, and r * h.
    void step_before(float* const* gate_rows) {
        const auto step = [at = row_, state = state_, reset_state = reset_state_, hidden_size = s_.H, gate_rows](
                              Index row, Index panel, const Vec* products) GATEWISE_INLINE {
            const Index unit = panel * lanes, used = lanes_used(hidden_size, panel);
            float* gates = gate_rows[row] + unit;
            const Vec h = state.at(row, unit, used);
            const Vec r = Arithmetic::sigmoid(load(gates + at.r) + products[0]);               // (1)
            store(gates + at.r, r);
            store(gates + at.z(), Arithmetic::sigmoid(load(gates + at.z()) + products[1]));    // (2)
            reset_state.set(row, unit, used, r * h);
        };
        multiply<2>(state_.rows(), share_.rows(), recurrent_, step);
    }

    // The candidate and the state, from the whole of r * h.
    void finish_before(float* const* gate_rows) {
        const auto step = [at = row_, state = state_, hidden_size = s_.H, gate_rows](
                              Index row, Index panel, const Vec* products) GATEWISE_INLINE {
            const Index unit = panel * lanes, used = lanes_used(hidden_size, panel);
            float* gates = gate_rows[row] + unit;
            const Vec h = state.at(row, unit, used);
            const Vec z = load(gates + at.z());
            const Vec n = Arithmetic::tanh(load(gates + at.n()) + products[0]);  // (3)
            state.set(row, unit, used, n + z * (h - n));                         // (4)
            store(gates + at.n(), n);
        };
        multiply<1>(reset_state_, share_.rows(), candidate_, step);
    }

    // body(row, panel, products) for `count` rows, times the weights of G gates in the share's panels.
    template <int G, typename Rows, typename Body>
    void multiply(const Rows& rows, Index count, const Weights& w, const Body& body) const {
        const Index begin = share_.panel_begin, end = share_.panel_end;
        if constexpr (Arithmetic::unpacked_forward_rows > 0)
            if (!space_.packs)
                return Arithmetic::template multiply_unpacked<G>(rows, count, w.depth, w.matrix, s_.H, begin, end,
                                                                 body);
        Arithmetic::template multiply<G>(rows, 0, count, w.depth, w.packed + begin * w.panel, begin, end, body);
    }

    void write_last_state() {
        if (share_.member != 0) return;
        for (Index b = share_.row_begin; b < share_.row_end; ++b)
            std::copy_n(call_.y.at(s_.T - 1, b), s_.H, call_.hn + b * s_.H);
    }

    const GruForwardOf<Number>& call_;
    const ForwardSpace<Arithmetic>& space_;
    const Share& share_;
    const GruShape& s_;
    const bool after_;
    const GateRow row_;
    const Weights input_, recurrent_, candidate_;
    const typename Arithmetic::Inputs x_rows_;
    float** gate_rows_;
    typename Arithmetic::State state_;
    const typename Arithmetic::Matrix reset_state_;
};

}  // namespace
}  // namespace gatewise
