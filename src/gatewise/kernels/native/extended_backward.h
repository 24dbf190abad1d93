// The derivative of what an extended cell does beside the products of a step; see extended.h.
#pragma once

#include "extended.h"

namespace gatewise {
namespace {

// Sums over rows, in slots: of the gradients of the biases, in the order of cells.h, and of those of the gains.
template <typename Cell>
struct RowSumSlots {
    static constexpr int biases = 0, input = Cell::gradients, state = input + Cell::gates, cell = state + Cell::gates,
                         cell_bias = cell + Cell::has_second_state, count = cell_bias + Cell::has_second_state;
};

// Of a plain cell: nothing.
template <typename Cell, typename Arithmetic>
struct BackwardExtensionSpace {
    BackwardExtensionSpace(Arena&, const Shape&, Grid, Index, Index) {}
};

template <typename Cell, typename Arithmetic>
class BackwardExtension {
  public:
    template <typename... Rest>
    explicit BackwardExtension(const Rest&...) {}
};

// Of an extended one: what the threads share, and what each group or thread has of its own.
template <typename Cell, typename Arithmetic>
struct BackwardExtensionSpace<Extended<Cell>, Arithmetic> {
    Gains<Cell> gains;
    float* masked;    // of each group: m * h of each row of a chunk
    float* products;  // of each group: the gradient of the second product's factor, of each row
    float* sums;      // of each part of each group's rows: RowSumSlots
    Index rows;       // of a chunk, of a group
    // Of a group's rows: as many as members were meant to share them, so that the sums are always the same.
    int parts;

    BackwardExtensionSpace(Arena& arena, const Shape& s, Grid grid, Index group_rows, Index steps)
        : gains(arena, s), masked(arena.take(grid.groups * steps * group_rows * padded(s.H))),
          products(arena.take(Cell::has_second_product ? grid.groups * group_rows * padded(s.H) : 0)),
          sums(arena.take(s.normalised ? grid.groups * grid.chunks * RowSumSlots<Cell>::count * padded(s.H) : 0)),
          rows(steps * group_rows), parts(grid.chunks) {}
};

// A row of a step, of which the derivative is taken.
struct BackwardRow {
    Index t, b;          // its step, and its place in the sweep
    const float* saved;
    const float *h, *c;  // the states before
    const float* dy;     // or null
    float *dh, *dc;      // gradients of the states
    float* gradients;    // of its gates
    float* masked;       // m * h
    float* factor;       // of the second product
    float* product;      // gradient of that factor
    float* sums;         // to which it is added
};

template <typename Cell, typename Arithmetic>
class BackwardExtension<Extended<Cell>, Arithmetic> {
    using Number = typename Arithmetic::Number;
    using Space = BackwardExtensionSpace<Extended<Cell>, Arithmetic>;
    using Slots = RowSumSlots<Cell>;
    static constexpr int gates = Cell::gates;

  public:
    BackwardExtension(const BackwardOf<Number>& call, const Space& space, const Share& share, Index group_rows)
        : s_(call.shape), r_(*call.regularisation), share_(share), space_(space), gains_(space.gains),
          slot_(padded(s_.H)), masked_(space.masked + share.group * space.rows * slot_),
          products_(space.products + (Cell::has_second_product ? share.group * group_rows * slot_ : 0)),
          sums_(space.sums + (s_.normalised ? share.group * space.parts * Slots::count * slot_ : 0)) {}

    // The gains of the panels [begin, end), and this share's sums.
    void prepare(Index begin, Index end) const {
        gains_.prepare(s_, r_, begin, end);
        if (s_.normalised) for_own_parts([&](int part) { std::fill_n(sums(part), Slots::count * slot_, 0.0f); });
    }

    // body(row, sums): this share's rows among the first `count` ones of the group.
    template <typename Body>
    void for_own_rows(Index count, const Body& body) const {
        for_own_parts([&](int part) {
            const auto [begin, end] = part_of(count, part, space_.parts);
            for (Index row = begin; row < end; ++row) body(row, sums(part));
        });
    }

    bool masks() const { return r_.dropout.data; }
    float* masked(Index i) const { return masked_ + i * slot_; }   // of row i of the chunk
    float* product(Index row) const { return products_ + row * slot_; }  // of a row of the group

    // m of a row of the sweep, or null.
    const float* mask(Index b) const { return r_.dropout.data ? r_.dropout.at(0, s_.place(b)) : nullptr; }

    // The gradients of a row's gates, and of its states, as far as these do not come by way of the products: of a cell
    // with two products those of the last gate, and what does not come by way of the first gates.
    void back(const BackwardRow& row) const {
        mask_state(row);
        if constexpr (Cell::has_second_state) {
            if (s_.normalised) back_second_state<true>(row);
            else back_second_state<false>(row);
        } else {
            if (s_.normalised) back_units<true>(row);
            else back_units<false>(row);
        }
    }

    // Those of the first gates of a cell with two products, from the gradient of the second one's factor.
    void finish_back(const BackwardRow& row) const {
        if (s_.normalised) finish_units<true>(row);
        else finish_units<false>(row);
    }

    // The sum over all rows of the units [unit, unit + lanes) of a slot of RowSumSlots.
    Vec sum(int slot, Index unit) const {
        Vec sum{};
        for (int part = 0; part < share_.groups * space_.parts; ++part)
            sum += load(space_.sums + (part * Slots::count + slot) * slot_ + unit);
        return sum;
    }

    // Gradients of the gains and the shift, of the panels [begin, end).
    void write(const RegularisationGradients& to, Index begin, Index end) const {
        const auto write = [&](float* to, int slot, int count) {
            for (int g = 0; to && g < count; ++g)
                for (Index p = begin; p < end; ++p)
                    store_first(to + g * s_.H + p * lanes, sum(slot + g, p * lanes), lanes_used(s_.H, p));
        };
        write(to.norm_ih, Slots::input, gates);
        write(to.norm_hh, Slots::state, gates);
        if (!Cell::has_second_state) return;
        write(to.norm_c, Slots::cell, 1);
        write(to.norm_c_bias, Slots::cell_bias, 1);
    }

  private:
    static constexpr int block_count = Extended<Cell>::block_count;

    float* sums(int part) const { return sums_ + (s_.normalised ? part * Slots::count * slot_ : 0); }

    // body(part): those of the group's parts that are this share's.
    template <typename Body>
    void for_own_parts(const Body& body) const {
        if (share_.members > 1) return body(share_.member);
        for (int part = 0; part < space_.parts; ++part) body(part);
    }

    const float* normalised_inputs(const BackwardRow& row) const { return row.saved + Cell::saved * slot_; }
    const float* normalised_products(const BackwardRow& row) const { return normalised_inputs(row) + gates * slot_; }
    Statistics statistics(const BackwardRow& row) const {
        return {const_cast<float*>(normalised_products(row) + gates * slot_)};  // only read
    }

    Kept kept(const Sequence<const bool>& masks, double part, const BackwardRow& row) const {
        return {s_, masks, part, row.t, row.b};
    }

    void mask_state(const BackwardRow& row) const {
        const float* m = mask(row.b);
        if (!m) return;
        for_units(s_.H, [&](Index unit, Index used) GATEWISE_INLINE {
            store(row.masked + unit, load_first(m + unit, used) * load_first(row.h + unit, used));
        });
    }

    // The sums that the derivative of a normalisation needs: over a block, of the gradients with respect to what is
    // normalised, and of these times it.
    struct BlockSums {
        Vec plain[block_count], weighted[block_count];

        GATEWISE_INLINE void add(int block, Vec gradient, Vec normalised) {
            plain[block] += gradient;
            weighted[block] += gradient * normalised;
        }
    };

    // What takes the gradients of a row's gates before their activations. Normalised, they are those of gain * v + bias
    // for a normalised v: those of gain and bias are added up, that of v is put in its slot, and only put() makes that
    // of the product of it.
    template <bool Normalised>
    struct Gradients {
        const BackwardExtension& of;
        float *to, *sums;
        const float *inputs, *products;  // normalised
        BlockSums of_inputs{}, of_products{};

        Gradients(const BackwardExtension& of, const BackwardRow& row)
            : of(of), to(row.gradients), sums(row.sums), inputs(of.normalised_inputs(row)),
              products(of.normalised_products(row)) {}

        GATEWISE_INLINE void take(int slot, Index unit, Vec v) {
            const Index size = of.slot_;
            if constexpr (Normalised) {
                add(Slots::biases + slot, unit, v);
                if (slot < gates) {
                    const int gate = Cell::gate_of(slot);
                    take_side(slot, gate, Slots::state, unit, v, products, of.gains_.state, of_products);
                }
                if (slot >= Cell::first_gate) {
                    const int gate = slot - Cell::first_gate;
                    take_side(gates + gate, gate, Slots::input, unit, v, inputs, of.gains_.input, of_inputs);
                }
            } else {
                store(to + slot * size + unit, v);
            }
        }

        // Adds the gradients of a gate that were taken for the sums of its block once more.
        GATEWISE_INLINE void add_again(int slot, Index unit) {
            if constexpr (Normalised) {
                const int gate = Cell::gate_of(slot), block = Extended<Cell>::block_of(gate);
                const Index at = gate * of.slot_ + unit;
                of_products.add(block, load(to + slot * of.slot_ + unit), load(products + at));
                of_inputs.add(block, load(to + gates * of.slot_ + at), load(inputs + at));
            }
        }

        // The blocks [first, last).
        void put(const BackwardRow& row, int first, int last) {
            if constexpr (Normalised)
                for (int block = first; block < last; ++block) {
                    const Statistics statistics = of.statistics(row);
                    for (int gate = Cell::blocks[block]; gate < Cell::blocks[block + 1]; ++gate) {
                        put_side(gates + gate, gate, block, statistics.input(block), inputs, of_inputs);
                        put_side(slot_of(gate), gate, block, statistics.state(block), products, of_products);
                    }
                }
        }

        GATEWISE_INLINE void add(int slot, Index unit, Vec v) {
            float* sum = sums + slot * of.slot_ + unit;
            store(sum, load(sum) + v);
        }

      private:
        static constexpr int slot_of(int gate) {
            int slot = 0;
            while (Cell::gate_of(slot) != gate) ++slot;
            return slot;
        }
        GATEWISE_INLINE void take_side(int slot, int gate, int gain_sums, Index unit, Vec v, const float* normalised,
                                       const float* gains, BlockSums& block_sums) {
            const Index size = of.slot_;
            const Vec value = load(normalised + gate * size + unit), gradient = v * load(gains + gate * size + unit);
            add(gain_sums + gate, unit, v * value);
            block_sums.add(Extended<Cell>::block_of(gate), gradient, value);
            store(to + slot * size + unit, gradient);
        }
        void put_side(int slot, int gate, int block, float scale, const float* normalised, const BlockSums& sums) {
            const Index size = of.slot_;
            const float count = static_cast<float>(Extended<Cell>::gates_of(block) * of.s_.H);
            const float plain = total(sums.plain[block]) / count, weighted = total(sums.weighted[block]) / count;
            float* gradients = to + slot * size;
            normalised += gate * size;
            for (Index unit = 0; unit < size; unit += lanes)
                store(gradients + unit,
                      scale * (load(gradients + unit) - plain - weighted * load(normalised + unit)));
        }
    };

    // A vector of units, with the gradient of the state after the step.
    GATEWISE_INLINE BackwardUnits units_at(const BackwardRow& row, Index unit, Index used) const {
        BackwardUnits units;
        units.gates = row.saved + unit;
        units.slot = slot_;
        units.h = load_first(row.h + unit, used);
        units.dh = row.dy ? load(row.dh + unit) + load_first(row.dy + unit, used) : load(row.dh + unit);
        if constexpr (Cell::has_second_state) {
            units.c = load_first(row.c + unit, used);
            units.dc = row.dc + unit;
        }
        return units;
    }

    template <bool Normalised>
    void back_units(const BackwardRow& row) const {
        const Kept k = kept(r_.zoneout_h, r_.kept_h, row);
        Gradients<Normalised> gradients(*this, row);
        for_units(s_.H, [&](Index unit, Index used) GATEWISE_INLINE {
            BackwardUnits units = units_at(row, unit, used);
            const Vec before = k.before(units.dh, unit, used);
            units.dh = k.after(units.dh, unit, used);
            const auto set = [&](int slot, Vec v) GATEWISE_INLINE { gradients.take(slot, unit, v); };
            if constexpr (Cell::has_second_product) {
                const Vec seen = masks() ? load(row.masked + unit) : units.h;
                store(row.factor + unit, units.saved(0) * seen);
            }
            store(row.dh + unit, Cell::back(units, set) + before);
        });
        gradients.put(row, Cell::has_second_product ? block_count - 1 : 0, block_count);
    }

    template <bool Normalised>
    void finish_units(const BackwardRow& row) const {
        const float* m = mask(row.b);
        Gradients<Normalised> gradients(*this, row);
        for_units(s_.H, [&](Index unit, Index used) GATEWISE_INLINE {
            const auto set = [&](int slot, Vec v) GATEWISE_INLINE { gradients.take(slot, unit, v); };
            const Vec seen = m ? load(row.masked + unit) : load_first(row.h + unit, used);
            const Vec sum = Cell::finish_back(row.saved + unit, seen, load(row.product + unit), set);
            store(row.dh + unit, load(row.dh + unit) + (m ? load_first(m + unit, used) * sum : sum));
            for (int slot = 1; slot < gates - 1; ++slot) gradients.add_again(slot, unit);  // back() has taken them
        });
        gradients.put(row, 0, 1);
    }

    template <bool Normalised>
    void back_second_state(const BackwardRow& row) const {
        const Kept k_h = kept(r_.zoneout_h, r_.kept_h, row), k_c = kept(r_.zoneout_c, r_.kept_c, row);
        const Moments m = Normalised ? statistics(row).second_state() : Moments{0, 1};
        Gradients<Normalised> gradients(*this, row);
        BlockSums sums{};
        // The new cell as it is without zoneout; normalised, if it is.
        const auto cell_of = [&](const BackwardUnits& units) GATEWISE_INLINE {
            const Vec v = units.saved(1) * units.c + units.saved(0) * units.saved(2);  // (5)
            return Normalised ? (v - m.mean) * m.scale : v;
        };
        float* const shown = row.gradients + gates * slot_;  // what comes by way of (6) waits there, if normalised
        const auto back_to_cell = [&](BackwardUnits& units, Index unit, Index used, const auto& set) GATEWISE_INLINE {
            store(row.dh + unit, k_h.before(units.dh, unit, used));
            units.dh = k_h.after(units.dh, unit, used);
            const Vec v = cell_of(units);
            if constexpr (Normalised) {
                const Vec gain = load(gains_.cell + unit);
                const Vec d = Cell::back_to_cell(units, tanh(v * gain + load(gains_.cell_bias + unit)), set);
                gradients.add(Slots::cell, unit, d * v);
                gradients.add(Slots::cell_bias, unit, d);
                sums.add(0, d * gain, v);
                return d * gain;
            } else {
                return Cell::back_to_cell(units, tanh(v), set);
            }
        };
        const auto back_from_cell = [&](const BackwardUnits& units, Vec dv, Index unit, Index used,
                                        const auto& set) GATEWISE_INLINE {
            const Vec dc = load(units.dc), before = k_c.before(dc, unit, used);
            store(units.dc, before + Cell::back_from_cell(units, k_c.after(dc, unit, used) + dv, set));
        };
        for_units(s_.H, [&](Index unit, Index used) GATEWISE_INLINE {
            const auto set = [&](int slot, Vec v) GATEWISE_INLINE { gradients.take(slot, unit, v); };
            BackwardUnits units = units_at(row, unit, used);
            const Vec dv = back_to_cell(units, unit, used, set);
            if constexpr (Normalised) store(shown + unit, dv);
            else back_from_cell(units, dv, unit, used, set);
        });
        if constexpr (Normalised) {
            const float count = static_cast<float>(s_.H);
            const float plain = total(sums.plain[0]) / count, weighted = total(sums.weighted[0]) / count;
            for_units(s_.H, [&](Index unit, Index used) GATEWISE_INLINE {
                const auto set = [&](int slot, Vec v) GATEWISE_INLINE { gradients.take(slot, unit, v); };
                const BackwardUnits units = units_at(row, unit, used);
                const Vec dv = m.scale * (load(shown + unit) - plain - weighted * cell_of(units));
                back_from_cell(units, dv, unit, used, set);
            });
            gradients.put(row, 0, block_count);
        }
    }

    const Shape& s_;
    const Regularisation& r_;
    const Share& share_;
    const Space& space_;
    const Gains<Cell> gains_;
    const Index slot_;
    float *masked_, *products_, *sums_;
};

}  // namespace
}  // namespace gatewise
