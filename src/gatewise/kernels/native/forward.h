// The forward sweep. Its steps bear the numbers of the equations in kernels/reference.py.
//
// `Arithmetic` says how numbers are kept and products made: Float32 (float32.h) or TiledBfloat16 (bfloat16_tiles.h).
#pragma once

#include <optional>

#include "extended_forward.h"

namespace gatewise {
namespace {

// Sums over all bits of some weights, by which they are known again. A rotation before each addition tells the order,
// too, and a single change always changes the sums.
struct alignas(64) Fingerprint {
    typedef std::uint64_t Sums __attribute__((vector_size(sizeof(Vec))));
    Sums sums;

    // squeezed: how the weights are packed is a part of what is known of them.
    explicit Fingerprint(bool squeezed) : sums(Sums{} + squeezed) {}

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

// Whether a call packs the weights. Packed and unpacked products add up in different orders, so that with Rows only the
// steps decide: a row gives the same alone and in any batch of rows of different lengths.
template <typename Arithmetic>
bool packs_forward(const Shape& s) {
    return s.T > Arithmetic::unpacked_forward_steps || (!s.rows && s.B > Arithmetic::unpacked_forward_rows);
}

// The packed weights of a forward call, all panels.
template <typename Cell, typename Arithmetic>
struct PackedWeights {
    using Weight = typename Arithmetic::Weight;

    Index ih_panel = 0, hh_panel = 0, second_panel = 0;  // packed numbers of a panel
    Weight* ih = nullptr;
    Weight* hh = nullptr;      // of the gates that have the state as their factor, if there are any
    Weight* second = nullptr;  // of the gate that has a second product, or of the projection
    Fingerprint* prints = nullptr;  // if they are kept: of what each panel of the three was packed from

    PackedWeights() = default;
    PackedWeights(Arena& arena, const Shape& s, bool keeps) {
        constexpr int second_gates = Cell::has_second_product;
        ih_panel = Arithmetic::panel_size(s.I, Cell::gates);
        hh_panel = Cell::has_recurrent_weights ? Arithmetic::panel_size(s.state(), Cell::gates - second_gates) : 0;
        second_panel = Arithmetic::panel_size(s.H, projects<Cell> ? 1 : second_gates);
        ih = arena.take<Weight>(panels(s.H) * ih_panel);
        hh = arena.take<Weight>(panels(s.H) * hh_panel);
        second = arena.take<Weight>(panels(s.state()) * second_panel);
        prints = keeps ? arena.take<Fingerprint>(3 * panels(s.H)) : nullptr;
    }
};

// What the threads of a forward call share, and what each group has of its own.
template <typename Cell, typename Arithmetic>
struct ForwardSpace {
    const bool packs;  // the weights; else they are read where they lie
    const bool squeezes;  // the last panels
    PackedWeights<Cell, Arithmetic> packed;
    float* bias;          // what is added to the input's products, a slot for each gate
    float* last_bias;     // what is added to the last gate's recurrent product, where that is kept apart
    float* gates;         // a chunk of gates of each group, where they are not saved for the whole sequence
    float* factor;        // the factor of the second product, of each group
    float* state;         // the state of each group
    float* c;             // the second state of each group
    float* x_rows;        // the rows of a chunk's input, for each thread
    float** gate_rows;    // pointers to the gates of its rows, for each thread
    Barrier* barriers;    // one a group
    Index rows, steps;    // most rows of a group, most steps of a chunk
    Index factor_size, state_size, x_size;  // of a group, of a thread
    std::optional<ForwardExtensionSpace<Cell, Arithmetic>> extension;

    // kept: where the packed weights are kept; null: in the arena. replayed: steps that are computed again at once, all
    // that they save in a chunk; 0: not again.
    ForwardSpace(Arena& arena, const Shape& s, Grid grid, bool saves, bool keeps, float* kept, Index replayed = 0)
        : packs(packs_forward<Arithmetic>(s)), squeezes(Arithmetic::squeezes(most_rows(s, grid))) {
        Arena kept_arena(kept);
        if (packs) packed = PackedWeights<Cell, Arithmetic>(keeps ? kept_arena : arena, s, keeps);
        const GateRow row = saves ? saved_row<Cell>(s) : GateRow(s.H, Cell::gates);
        const Index shares = grid.shares();
        rows = most_rows(s, grid);
        steps = replayed > 0 ? replayed : packs ? chunk_steps(s, grid, rows, row.width) : s.T;
        factor_size = has_factor<Cell> ? Arithmetic::Matrix::size(rows, s.H) : 0;
        state_size = Arithmetic::State::size(s, rows, grid.members);
        x_size = Arithmetic::Inputs::size(steps * rows, s.I);
        bias = arena.take(Cell::gates * row.slot);
        last_bias = arena.take(Cell::keeps_last_bias ? row.slot : 0);
        gates = arena.take(saves && replayed == 0 ? 0 : grid.groups * steps * rows * row.width);
        factor = arena.take(grid.groups * factor_size);
        state = arena.take(grid.groups * state_size);
        c = arena.take(Cell::has_second_state ? grid.groups * rows * row.slot : 0);
        x_rows = arena.take(shares * x_size);
        gate_rows = arena.take<float*>(shares * steps * rows);
        barriers = arena.take<Barrier>(grid.groups);
        extension.emplace(arena, s, grid, rows);
    }
};

template <typename Cell, typename Arithmetic>
class ForwardSweep {
    using Number = typename Arithmetic::Number;
    using Weight = typename Arithmetic::Weight;
    using State = typename Arithmetic::State;
    static constexpr int gates = Cell::gates, first_gates = gates - Cell::has_second_product;

  public:
    ForwardSweep(const ForwardOf<Number>& call, const ForwardSpace<Cell, Arithmetic>& space, const Share& share)
        : ForwardSweep(call, space, share, call.saved != nullptr) {}

    // saves: what each step has is saved, in call.saved or in a chunk.
    ForwardSweep(const ForwardOf<Number>& call, const ForwardSpace<Cell, Arithmetic>& space, const Share& share,
                 bool saves)
        : call_(call), space_(space), share_(share), s_(call.shape), saves_(saves),
          row_(saves ? saved_row<Cell>(s_) : GateRow(s_.H, gates)),
          input_{call.weights.ih, s_.I, gates, s_.H, space.packed.ih, space.packed.ih_panel},
          recurrent_{call.weights.hh, s_.state(), first_gates, s_.H, space.packed.hh, space.packed.hh_panel},
          second_{second_weights(call.weights), s_.H, 1, s_.state(), space.packed.second, space.packed.second_panel},
          x_rows_(space.x_rows + share.share * space.x_size, s_.I),
          gate_rows_(space.gate_rows + share.share * space.steps * space.rows),
          state_(space.state + share.group * space.state_size, call, share, space.rows),
          factor_(space.factor + share.group * space.factor_size, s_.H),
          c_(space.c + (Cell::has_second_state ? share.group * space.rows * row_.slot : 0)),
          extension_(call, *space.extension, share, space.rows, saves, space.bias, space.last_bias) {}

    // The three parts of a call; between them, all shares wait for each other.
    void prepare() {
        state_.start();
        if constexpr (has_factor<Cell>) factor_.clear_padding(share_.rows(), share_.panel_end);
        if constexpr (Cell::has_second_state)
            for (Index row = 0; row < share_.rows(); ++row) start_second_state(row);
        prepare_weights();
    }

    void sweep() {
        for (Index t = 0; t < s_.T; t += space_.steps) take_steps(t, std::min(t + space_.steps, s_.T));
    }

    // Computes once more what the steps [begin, end) save, from the states, which are there, and the checkpoint before
    // them. Returns the first row's slots.
    const float* replay(Index begin, Index end, [[maybe_unused]] Index checkpoint,
                        [[maybe_unused]] const Sequence<const float>& checkpoints) {
        if constexpr (Cell::has_second_state)
            for (Index row = 0; row < rows_at(s_, share_, begin); ++row)
                for (Index p = share_.panel_begin; p < share_.panel_end; ++p)
                    store(c_ + row * row_.slot + p * lanes,
                          load(checkpoints.at(checkpoint, share_.row_begin + row) + p * lanes));
        take_steps(begin, end);
        return chunk();
    }

    void finish() {
        write_last_state();
        if constexpr (Cell::has_second_state) write_second_state();
    }

  private:
    void take_steps(Index begin, Index end) {
        project_inputs(find_rows(begin, end));
        if constexpr (is_extended<Cell>) {
            extension_.mask_states(begin, rows_at(s_, share_, begin));
            share_.wait();  // these, and the inputs' products, are whole
        }
        float* const* gate_rows = gate_rows_;
        for (Index t = begin; t < end; ++t) {
            const Index count = rows_at(s_, share_, t);
            keep_checkpoint(t, count);
            restart_rows(t, count);
            state_.find(t, count);
            if constexpr (is_extended<Cell>) {
                extended_step(t, gate_rows, count, t + 1 < end ? rows_at(s_, share_, t + 1) : 0);
            } else if constexpr (projects<Cell>) {
                first_part(gate_rows, count);
                share_.wait();  // what is projected is whole
                project_states(count);
            } else if constexpr (Cell::has_second_product) {
                first_part(gate_rows, count);
                share_.wait();  // the second product's factor is whole
                second_part(gate_rows, count);
            } else {
                whole_step(gate_rows, count);
            }
            if constexpr (Cell::has_recurrent_weights) share_.wait();  // the state is whole
            gate_rows += count;
        }
    }

    // The second states before step t, if it is time; the others are in y.
    void keep_checkpoint([[maybe_unused]] Index t, [[maybe_unused]] Index count) const {
        if constexpr (Cell::has_second_state)
            if (call_.every > 0 && t % call_.every == 0)
                for (Index row = 0; row < count; ++row)
                    for (Index p = share_.panel_begin; p < share_.panel_end; ++p)
                        store(call_.checkpoints.at(t / call_.every, share_.row_begin + row) + p * lanes,
                              load(c_ + row * row_.slot + p * lanes));
    }

    // Weights of some gates: as the layer keeps them, and packed.
    struct Weights {
        const Number* matrix;
        Index depth, gates, units;
        Weight* packed;
        Index panel;  // packed numbers of a panel
    };

    const Number* second_weights(const WeightsOf<Number>& w) const {
        if constexpr (projects<Cell>) return w.hr;
        return Cell::has_second_product ? w.hh + first_gates * s_.H * s_.H : nullptr;
    }

    // The threads share the panels.
    void prepare_weights() {
        const auto [begin, end] = part_of(panels(s_.H), share_.share, share_.shares);
        sum_biases(begin, end);
        if constexpr (is_extended<Cell>) extension_.prepare(begin, end);
        Fingerprint* prints = space_.packed.prints;
        for (const Weights& w : {input_, recurrent_, second_}) {
            if (w.panel == 0) continue;
            const auto [first, last] = part_of(panels(w.units), share_.share, share_.shares);
            for (Index p = first; p < last; ++p)
                if (!prints || is_new(prints[p], w, p))
                    Arithmetic::pack(w.packed + p * w.panel, w.matrix, w.gates, w.units, w.depth, p, p + 1,
                                     space_.squeezes);
            if (prints) prints += panels(s_.H);
        }
    }

    // Whether a panel's weights are not those that it was packed from; the fingerprint becomes theirs.
    bool is_new(Fingerprint& print, const Weights& w, Index p) const {
        Fingerprint now{space_.squeezes};
        for (Index gate = 0; gate < w.gates; ++gate)
            now.add(w.matrix + (gate * w.units + p * lanes) * w.depth, lanes_used(w.units, p) * w.depth);
        if (now == print) return false;
        print = now;
        return true;
    }

    // What is added to the gates' products.
    void sum_biases(Index begin, Index end) {
        const WeightsOf<Number>& w = call_.weights;
        for (Index p = begin; p < end; ++p) {
            const Index used = lanes_used(s_.H, p), unit = p * lanes;
            const auto part = [&](const Number* bias, int gate) {
                return bias ? load_first(bias + gate * s_.H + unit, used) : Vec{};
            };
            for (int gate = 0; gate < gates; ++gate) {
                const Vec recurrent = part(w.bias_hh, gate);
                const bool apart = Cell::keeps_last_bias && gate == gates - 1;
                if (apart) store(space_.last_bias + unit, recurrent);
                const Vec input = part(w.bias_ih, gate);
                store(space_.bias + gate * row_.slot + unit, apart ? input : input + recurrent);
            }
        }
    }

    void start_second_state(Index row) {
        for (Index p = share_.panel_begin; p < share_.panel_end; ++p) {
            const Number* c0 = call_.c0.at(0, s_.place(share_.row_begin + row)) + p * lanes;
            store(c_ + row * row_.slot + p * lanes, load_first(c0, lanes_used(s_.H, p)));
        }
    }

    // The state itself is where State finds it.
    void restart_rows([[maybe_unused]] Index t, [[maybe_unused]] Index count) {
        if constexpr (Cell::has_second_state)
            if (t > 0 && s_.has_resets())
                for (Index row = 0; row < count; ++row)
                    if (s_.resets(t, share_.row_begin + row)) start_second_state(row);
    }

    // In what follows loops and lambdas have copies of all that they use: of what they reach through `this` the compiler
    // believes that each store can change it (a third of the time at H=64 in bfloat16).

    // Points at the rows of the steps [begin, end): step by step, those of the share's rows that take it. Returns how
    // many they are.
    Index find_rows(Index begin, Index end) {
        const Shape shape = s_;
        const Sequence<const Number> x = call_.x;
        float* const saved = call_.saved;
        float** const gate_rows = gate_rows_;
        const Index row_begin = share_.row_begin, width = row_.width;
        const Index first = saves_ ? Cell::first_gate * row_.slot : 0;
        float* gates = chunk() + first;
        Index i = 0;
        for (Index t = begin; t < end; ++t) {
            if (saved) gates = saved + (shape.offset(t) + row_begin) * width + first;
            const Index row_end = row_begin + rows_at(shape, share_, t);
            for (Index b = row_begin; b < row_end; ++b, ++i, gates += width) {
                x_rows_.set(i, shape.at(x, t, b));
                gate_rows[i] = gates;
            }
        }
        return i;
    }

    // Where the rows of a chunk have their gates, unless all are saved.
    float* chunk() const {
        return space_.gates + (call_.saved ? 0 : share_.group * space_.steps * space_.rows * row_.width);
    }

    // The gates of the chunk's rows = W_i x + b: the input's part of the equations.
    void project_inputs(Index rows) {
        if constexpr (is_extended<Cell>)
            if (s_.normalised) return project_normalised_inputs(rows);
        Arithmetic::template project<gates>(x_rows_, rows, own_panels(input_), gate_rows_, row_.slot, space_.bias);
    }

    // The same, where a normalisation comes between the product and the bias.
    void project_normalised_inputs(Index rows) {
        const auto put = [slot = row_.slot, gate_rows = gate_rows_](Index row, Index panel, const Vec* products)
                             GATEWISE_INLINE {
            for (int g = 0; g < gates; ++g) store(gate_rows[row] + g * slot + panel * lanes, products[g]);
        };
        Arithmetic::template multiply<gates>(x_rows_, rows, own_panels(input_), put);
        share_.wait();  // the rows are whole
        extension_.normalise_inputs(gate_rows_, rows);
    }

    // A step of an extended cell; `next` rows of those that take it go on to the next step of the chunk.
    void extended_step(Index t, float* const* gate_rows, Index count, Index next) {
        const auto& rows = extension_.read(state_.rows());
        const auto [begin, end] = own_rows(share_, count);
        Arithmetic::template multiply<first_gates>(rows, count, own_panels(recurrent_),
                                                   extension_.template put<0, first_gates>());
        share_.wait();  // the products are whole
        if constexpr (Cell::has_second_product) {
            for (Index row = begin; row < end; ++row)
                extension_.first_part(gate_rows[row], row, rows.row(row), factor_);
            share_.wait();  // the second product's factor is whole
            Arithmetic::template multiply<1>(factor_, count, own_panels(second_),
                                             extension_.template put<first_gates, gates>());
            share_.wait();  // its products are whole
        }
        for (Index row = begin; row < end; ++row) {
            extension_.step(gate_rows[row], t, row, state_.rows().row(row), state_.next(row), c_ + row * row_.slot);
            if (row < next) extension_.mask_state(t + 1, row);
        }
    }

    // use(units, row, unit, used): a vector of units of a row of the step.
    template <typename Use>
    auto on_units(float* const* gate_rows, const Use& use) const {
        return [slot = row_.slot, state = state_, last_bias = space_.last_bias, saves = saves_,
                hidden_size = s_.H, c = c_, gate_rows, use](Index row, Index panel, Vec* products) GATEWISE_INLINE {
            const Index unit = panel * lanes, used = lanes_used(hidden_size, panel);
            const ForwardUnits units{gate_rows[row] + unit, slot, products, last_bias + unit,
                                     projects<Cell> ? Vec{} : state.at(row, unit, used), c + row * slot + unit, saves};
            use(units, state, row, unit, used);
        };
    }

    // The cell's own part of a step, for multiply(); put(state, row, unit, used, v) takes what it gives.
    template <typename Put>
    auto on_steps(float* const* gate_rows, const Put& put) const {
        if constexpr (Cell::has_two_parts) {
            return TwoParts{on_units(gate_rows, [](const ForwardUnits& units, const State&, Index, Index, Index)
                                                    GATEWISE_INLINE { Cell::template begin<Arithmetic>(units); }),
                            on_units(gate_rows, [put](const ForwardUnits& units, const State& state, Index row,
                                                      Index unit, Index used) GATEWISE_INLINE {
                                put(state, row, unit, used, Cell::template end<Arithmetic>(units));
                            })};
        } else {
            return on_units(gate_rows, [put](const ForwardUnits& units, const State& state, Index row, Index unit,
                                             Index used) GATEWISE_INLINE {
                put(state, row, unit, used, Cell::template step<Arithmetic>(units));
            });
        }
    }

    void whole_step(float* const* gate_rows, Index count) {
        const auto step = on_steps(gate_rows, [](const State& state, Index row, Index unit, Index used, Vec h)
                                                  GATEWISE_INLINE { state.set(row, unit, used, h); });
        if constexpr (Cell::has_recurrent_weights) {
            Arithmetic::template multiply<gates>(state_.rows(), count, own_panels(recurrent_), step);
        } else {
            for (Index row = 0; row < count; ++row)
                for (Index p = share_.panel_begin; p < share_.panel_end; ++p) step(row, p, nullptr);
        }
    }

    // The gates, and the factor of the second product.
    void first_part(float* const* gate_rows, Index count) {
        const auto step = on_steps(gate_rows, [factor = factor_](const State&, Index row, Index unit, Index used, Vec v)
                                                  GATEWISE_INLINE { factor.set(row, unit, used, v); });
        Arithmetic::template multiply<first_gates>(state_.rows(), count, own_panels(recurrent_), step);
    }

    // The state, from the whole of that factor.
    void second_part(float* const* gate_rows, Index count) {
        const auto step = on_units(gate_rows, [](const ForwardUnits& units, const State& state, Index row, Index unit,
                                                 Index used) GATEWISE_INLINE {
            state.set(row, unit, used, Cell::template finish<Arithmetic>(units));
        });
        Arithmetic::template multiply<1>(factor_, count, own_panels(second_), step);
    }

    // The state, from the whole of what is projected.
    void project_states(Index count) {
        const auto put = [state = state_, size = s_.state()](Index row, Index panel, const Vec* products)
                             GATEWISE_INLINE { state.set(row, panel * lanes, lanes_used(size, panel), products[0]); };
        const auto weights = panels_of(second_, share_.state_begin, share_.state_end);
        Arithmetic::template multiply<1>(factor_, count, weights, put);
    }

    // The share's panels of some weights, and others.
    typename Arithmetic::Panels own_panels(const Weights& w) const {
        return panels_of(w, share_.panel_begin, share_.panel_end);
    }
    typename Arithmetic::Panels panels_of(const Weights& w, Index begin, Index end) const {
        return {w.matrix, w.units, w.depth, space_.packs ? w.packed + begin * w.panel : nullptr, begin, end,
                space_.squeezes};
    }

    void write_last_state() {
        if (share_.member != 0) return;
        for (Index b = share_.row_begin; b < share_.row_end; ++b) {
            const Index place = s_.place(b), steps = s_.length(b);
            const Number* last = steps > 0 ? s_.at(call_.y, steps - 1, b) : call_.h0.at(0, place);
            std::copy_n(last, s_.state(), call_.hn + place * s_.state());
        }
    }

    void write_second_state() {
        for (Index row = 0; row < share_.rows(); ++row)
            for (Index p = share_.panel_begin; p < share_.panel_end; ++p)
                store_first(call_.cn + s_.place(share_.row_begin + row) * s_.H + p * lanes,
                            load(c_ + row * row_.slot + p * lanes), lanes_used(s_.H, p));
    }

    const ForwardOf<Number>& call_;
    const ForwardSpace<Cell, Arithmetic>& space_;
    const Share& share_;
    const Shape& s_;
    const bool saves_;
    const GateRow row_;
    const Weights input_, recurrent_, second_;
    const typename Arithmetic::Inputs x_rows_;
    float** gate_rows_;
    State state_;
    const typename Arithmetic::Matrix factor_;
    float* c_;
    const ForwardExtension<Cell, Arithmetic> extension_;
};

}  // namespace
}  // namespace gatewise
