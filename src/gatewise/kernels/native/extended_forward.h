// What an extended cell does after the products of a step, and beside them; see extended.h. The steps bear the numbers
// of the equations in kernels/reference.py.
#pragma once

#include "extended.h"

namespace gatewise {
namespace {

// Of a plain cell: nothing.
template <typename Cell, typename Arithmetic>
struct ForwardExtensionSpace {
    ForwardExtensionSpace(Arena&, const Shape&, Grid, Index) {}
};

template <typename Cell, typename Arithmetic>
class ForwardExtension {
  public:
    template <typename... Rest>
    explicit ForwardExtension(const Rest&...) {}
};

// Of an extended one: what the threads share, and what each group has of its own.
template <typename Cell, typename Arithmetic>
struct ForwardExtensionSpace<Extended<Cell>, Arithmetic> {
    Gains<Cell> gains;
    float* products;  // of each group: a slot for each gate of each row
    float* masked;    // of each group: m * h of each row
    float* pointers;  // of each thread: to these rows

    ForwardExtensionSpace(Arena& arena, const Shape& s, Grid grid, Index rows)
        : gains(arena, s), products(arena.take(grid.groups * rows * Cell::gates * padded(s.H))),
          masked(arena.take(grid.groups * rows * padded(s.H))),
          pointers(arena.take(grid.shares() * Arithmetic::Inputs::size(rows, s.H))) {}
};

template <typename Cell, typename Arithmetic>
class ForwardExtension<Extended<Cell>, Arithmetic> {
    using Number = typename Arithmetic::Number;
    using Inputs = typename Arithmetic::Inputs;
    using Space = ForwardExtensionSpace<Extended<Cell>, Arithmetic>;
    static constexpr int gates = Cell::gates;

  public:
    // bias, last_bias: as of the plain sweep.
    ForwardExtension(const ForwardOf<Number>& call, const Space& space, const Share& share, Index rows, bool saves,
                     const float* bias, const float* last_bias)
        : call_(call), s_(call.shape), r_(*call.regularisation), share_(share), gains_(space.gains), saves_(saves),
          slot_(padded(s_.H)), bias_(bias), last_bias_(last_bias),
          products_(space.products + share.group * rows * gates * slot_),
          masked_(space.masked + share.group * rows * slot_),
          masked_rows_(space.pointers + share.share * Inputs::size(rows, s_.H), s_.H) {
        for (Index row = 0; row < rows; ++row) masked_rows_.set(row, masked_ + row * slot_);
    }

    // The gains of the panels [begin, end).
    void prepare(Index begin, Index end) const { gains_.prepare(s_, r_, begin, end); }

    // What the recurrent weights read, where `states` are the rows of the states.
    const Inputs& read(const Inputs& states) const { return r_.dropout.data ? masked_rows_ : states; }

    // Takes the products of the gates [First, Last).
    template <int First, int Last>
    auto put() const {
        return [products = products_ + First * slot_, row_size = gates * slot_, slot = slot_](
                   Index row, Index panel, const Vec* sums) GATEWISE_INLINE {
            for (int g = 0; g < Last - First; ++g) store(products + row * row_size + g * slot + panel * lanes, sums[g]);
        };
    }

    // m * h of a row, from the state before step t.
    void mask_state(Index t, Index row) const {
        if (!r_.dropout.data) return;
        const Index b = share_.row_begin + row;
        const bool first = t == 0 || (s_.has_resets() && s_.resets(t, b));
        const Number* h = first ? call_.h0.at(0, s_.place(b)) : s_.at(call_.y, t - 1, b);
        const float* m = r_.dropout.at(0, s_.place(b));
        float* to = masked_ + row * slot_;
        for_units(s_.H, [&](Index unit, Index used) GATEWISE_INLINE {
            store(to + unit, load_first(m + unit, used) * load_first(h + unit, used));
        });
    }

    // Of the rows that take step t.
    void mask_states(Index t, Index count) const {
        const auto [begin, end] = own_rows(share_, count);
        for (Index row = begin; row < end; ++row) mask_state(t, row);
    }

    // The gates of a chunk's rows, which are the input's products: normalised, with gain and bias.
    void normalise_inputs(float* const* gate_rows, Index rows) const {
        if (!s_.normalised) return;
        const auto [begin, end] = own_rows(share_, rows);
        for (Index i = begin; i < end; ++i)
            for (int block = 0; block < block_count; ++block) normalise_input(gate_rows[i], block);
    }

    // The first part of a step of a cell with two products. seen: what the recurrent weights read.
    template <typename Matrix>
    void first_part(float* row_gates, Index row, const float* seen, const Matrix& factor) const {
        const Products products(*this, row_gates, row, 0, 1);
        for_units(s_.H, [&](Index unit, Index used) GATEWISE_INLINE {
            Vec sums[gates];
            products.template take<0, last>(sums, unit);
            const ForwardUnits units = units_at(row_gates, sums, unit, load_first(seen + unit, used));
            factor.set(row, unit, used, Cell::template step<Arithmetic>(units));
        });
    }

    // The state of a row after a step, from its gates, and the states before.
    void step(float* row_gates, Index t, Index row, const float* h, float* next, [[maybe_unused]] float* c) const {
        constexpr int first = Cell::has_second_product ? last : 0;
        const Products products(*this, row_gates, row, first == 0 ? 0 : block_count - 1, block_count);
        const Kept k = kept(r_.zoneout_h, r_.kept_h, t, row);
        if constexpr (Cell::has_second_state) {
            step_second_state(products, row_gates, t, row, c);
            show_second_state(k, row_gates, products_ + row * gates * slot_, h, next);
        } else {
            for_units(s_.H, [&](Index unit, Index used) GATEWISE_INLINE {
                Vec sums[gates];
                products.template take<first, gates>(sums, unit);
                const ForwardUnits units = units_at(row_gates, sums + first, unit, load_first(h + unit, used));
                const Vec after = finish(units);
                store_first(next + unit, k.of(units.h, after, unit, used), used);
            });
        }
    }

  private:
    static constexpr int last = gates - 1;
    static constexpr int block_count = Extended<Cell>::block_count;
    static constexpr int gates_of(int block) { return Extended<Cell>::gates_of(block); }

    // Of a row of gates, which begins with its first gate: what is saved behind the cell's own slots.
    float* normalised_inputs(float* row_gates) const { return row_gates + (Cell::saved - Cell::first_gate) * slot_; }
    float* normalised_products(float* row_gates) const { return normalised_inputs(row_gates) + gates * slot_; }
    Statistics statistics(float* row_gates) const { return {normalised_inputs(row_gates) + 2 * gates * slot_}; }

    // The products of the state with the recurrent weights, of one row: normalised, if they are.
    struct Products {
        const float* data;
        Index slot;
        Moments moments[block_count];
        const float* gains;  // null: not normalised
        float* save;         // where they go; or null

        // The blocks [first, last).
        Products(const ForwardExtension& of, float* row_gates, Index row, int first, int last)
            : data(of.products_ + row * gates * of.slot_), slot(of.slot_), moments{}, gains(of.gains_.state),
              save(gains && of.saves_ ? of.normalised_products(row_gates) : nullptr) {
            if (!gains) return;
            for (int block = first; block < last; ++block) {
                moments[block] = moments_of(data + Cell::blocks[block] * slot, gates_of(block), slot, of.s_.H);
                if (save) of.statistics(row_gates).state(block) = moments[block].scale;
            }
        }

        // A vector of those of the gates [First, Last).
        template <int First, int Last>
        GATEWISE_INLINE void take(Vec (&sums)[gates], Index unit) const {
            for (int g = First; g < Last; ++g) {
                sums[g] = load(data + g * slot + unit);
                if (!gains) continue;
                const Moments& m = moments[Extended<Cell>::block_of(g)];
                const Vec v = (sums[g] - m.mean) * m.scale;
                if (save) store(save + g * slot + unit, v);
                sums[g] = v * load(gains + g * slot + unit);
            }
        }
    };

    GATEWISE_INLINE ForwardUnits units_at(float* row_gates, Vec* products, Index unit, Vec h) const {
        return {row_gates + unit, slot_, products, last_bias_ + unit, h, nullptr, saves_};
    }

    GATEWISE_INLINE static Vec finish(const ForwardUnits& units) {
        if constexpr (Cell::has_second_product) return Cell::template finish<Arithmetic>(units);
        else if constexpr (Cell::has_two_parts) {
            Cell::template begin<Arithmetic>(units);
            return Cell::template end<Arithmetic>(units);
        } else return Cell::template step<Arithmetic>(units);
    }

    Kept kept(const Sequence<const bool>& masks, double part, Index t, Index row) const {
        return {s_, masks, part, t, share_.row_begin + row};
    }

    void normalise_input(float* row_gates, int block) const {
        const int first = Cell::blocks[block];
        float* gate = row_gates + first * slot_;
        const Moments m = moments_of(gate, gates_of(block), slot_, s_.H);
        if (saves_) statistics(row_gates).input(block) = m.scale;
        float* save = saves_ ? normalised_inputs(row_gates) + first * slot_ : nullptr;
        const float *gain = gains_.input + first * slot_, *bias = bias_ + first * slot_;
        for (Index i = 0; i < gates_of(block) * slot_; i += lanes) {
            const Vec v = (load(gate + i) - m.mean) * m.scale;
            if (save) store(save + i, v);
            store(gate + i, v * load(gain + i) + load(bias + i));
        }
    }

    // (1) to (5), which leave in the row's products what (6) takes the tanh of.
    void step_second_state(const Products& products, float* row_gates, Index t, Index row, float* c) const {
        const Kept k = kept(r_.zoneout_c, r_.kept_c, t, row);
        float* cell = products_ + row * gates * slot_;
        for_units(s_.H, [&](Index unit, Index used) GATEWISE_INLINE {
            Vec sums[gates];
            products.template take<0, gates>(sums, unit);
            ForwardUnits units = units_at(row_gates, sums, unit, Vec{});
            units.c = c + unit;
            const auto all = Cell::template units_of<Arithmetic>(units);
            Cell::save_gates(units, all);
            const Vec after = k.of(load(units.c), all.c, unit, used);
            store(units.c, after);
            if (saves_) units.save(Cell::second_state, after);
            store(cell + unit, all.c);
        });
    }

    // (6)
    void show_second_state(const Kept& k, float* row_gates, float* cell, const float* h, float* next) const {
        const float* o = row_gates + 3 * slot_;
        Moments m{0, 1};
        if (gains_.cell) {
            m = moments_of(cell, 1, slot_, s_.H);
            if (saves_) statistics(row_gates).set_second_state(m);
        }
        for_units(s_.H, [&](Index unit, Index used) GATEWISE_INLINE {
            Vec v = load(cell + unit);
            if (gains_.cell) v = (v - m.mean) * m.scale * load(gains_.cell + unit) + load(gains_.cell_bias + unit);
            const Vec after = load(o + unit) * Arithmetic::tanh(v);
            store_first(next + unit, k.of(load_first(h + unit, used), after, unit, used), used);
        });
    }

    const ForwardOf<Number>& call_;
    const Shape& s_;
    const Regularisation& r_;
    const Share& share_;
    const Gains<Cell> gains_;
    const bool saves_;
    const Index slot_;
    const float *bias_, *last_bias_;
    float *products_, *masked_;
    const Inputs masked_rows_;
};

}  // namespace
}  // namespace gatewise
