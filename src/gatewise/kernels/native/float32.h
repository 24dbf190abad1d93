// Float32 arithmetic for the sweeps: how products are made, and where the rows and the state lie. See also
// bfloat16_tiles.h.
#pragma once

#include "activations.h"
#include "plan.h"
#include "unpacked.h"

namespace gatewise {
namespace {

struct Float32 {
    using Number = float;  // of inputs and outputs
    using Weight = float;  // of packed weights
    using Panels = PanelsOf<Number, Weight>;
    using BackPanels = BackPanelsOf<Number, Weight>;

    // Fewest rows of the batch that are worth a thread of its own.
    static constexpr Index rows_of_a_thread = 4;

    // Packed recurrent weights that fit beside the rest in a second cache of 2 MB. Above it, threads share the units
    // rather than the rows, so that each keeps its part of the weights (15 to 20 % at H=512).
    static constexpr Index cached_weight_bytes = 3 * 512 * 1024;

    // Bytes of gates' gradients that are summed over at once.
    static constexpr Index backward_chunk_bytes = chunk_bytes;

    // Steps and rows of a call up to which its weights are read where they lie (T=1, B=1, H=256: 4 times as fast; at 32
    // rows it takes 1.1 times as long, at 128 rows and H=64 twice as long).
    static constexpr Index unpacked_forward_steps = 1, unpacked_forward_rows = 16;

    // Rows (step, batch) up to which that is done backward, and the gradients are written where they belong (T=1, B=1,
    // H=256: 1.6 times as fast; at 32 rows still 1.15 times).
    static constexpr Index unpacked_backward_rows = 32;

    // What a thread has to hold while it computes.
    struct Session {};

    GATEWISE_INLINE static Vec sigmoid(Vec x) { return gatewise::sigmoid(x); }
    GATEWISE_INLINE static Vec tanh(Vec x) { return gatewise::tanh(x); }

    // Packed numbers of a panel of `gates` gates.
    static Index panel_size(Index depth, Index gates) { return depth * gates * lanes; }

    // Whether panels are squeezed, for groups of so many rows. Of fewer, the sums are taken apart before they have reached
    // the cache (B=4, H=20: 1.3 times as long).
    static bool squeezes(Index rows) { return rows >= 8; }

    // A weight matrix (gates * units, depth) as panels, for multiply(); panels [begin, end), the first at `packed`.
    static void pack(float* packed, const float* weights, Index gates, Index units, Index depth, Index begin, Index end,
                     bool squeezed) {
        pack_transposed(packed, weights, gates, gates_together(static_cast<int>(gates)), units, depth, begin, end,
                        squeezed);
    }

    // Rows of numbers that are read where they lie.
    class Inputs {
      public:
        static Index size(Index rows, Index) { return rows * pointer_floats; }
        Inputs(float* memory, Index) : rows_(reinterpret_cast<const float**>(memory)) {}
        GATEWISE_INLINE void set(Index i, const float* row) const { rows_[i] = row; }
        GATEWISE_INLINE const float* row(Index i) const { return rows_[i]; }
        RowsAt at(Index i) const { return {rows_ + i, nullptr, 0}; }  // from row i on

      private:
        static constexpr Index pointer_floats = sizeof(const float**) / sizeof(float);
        const float** rows_;
    };

    // Rows of numbers that are computed, vector by vector.
    class Matrix {
      public:
        static Index size(Index rows, Index columns) { return rows * padded(columns); }
        Matrix(float* memory, Index columns) : data_(memory), stride_(padded(columns)) {}
        void clear_padding(Index, Index) const {}
        GATEWISE_INLINE void set(Index row, Index column, Index, Vec v) const {
            store(data_ + row * stride_ + column, v);
        }
        RowsAt at(Index i) const { return {nullptr, data_ + i * stride_, stride_}; }

      private:
        float* data_;
        Index stride_;
    };

    // The state of a share's rows: in h0 before the first step, then in y.
    class State {
      public:
        static Index size(const Shape&, Index rows, Index members) { return members * 2 * Inputs::size(rows, 0); }
        State(float* memory, const ForwardOf<float>& call, const Share& share, Index rows)
            : call_(call), share_(share), rows_(memory + share.member * 2 * Inputs::size(rows, 0), 0),
              next_(reinterpret_cast<float**>(memory + (share.member * 2 + 1) * Inputs::size(rows, 0))) {}

        void start() const {}

        // Gets ready for step t, which `count` rows take.
        void find(Index t, Index count) const {
            const Shape& s = call_.shape;
            const Index begin = share_.row_begin;
            if (!s.rows) {
                const Sequence<const float> before = t == 0 ? call_.h0 : Sequence<const float>{
                    call_.y.at(t - 1, 0), 0, call_.y.row};
                const Sequence<float> after =
                    call_.discarded ? Sequence<float>{call_.discarded, 0, s.H}
                                    : Sequence<float>{call_.y.at(t, 0), 0, call_.y.row};
                for (Index row = 0; row < count; ++row) {
                    rows_.set(row, before.at(0, begin + row));
                    next_[row] = after.at(0, begin + row);
                }
                return;
            }
            for (Index row = 0; row < count; ++row) {
                const Index b = begin + row;
                const bool first = t == 0 || (s.has_resets() && s.resets(t, b));
                rows_.set(row, first ? call_.h0.at(0, s.place(b)) : s.at(call_.y, t - 1, b));
                next_[row] = call_.discarded ? call_.discarded + b * s.H : s.at(call_.y, t, b);
            }
        }
        const Inputs& rows() const { return rows_; }
        float* next(Index row) const { return next_[row]; }
        GATEWISE_INLINE Vec at(Index row, Index unit, Index used) const {
            return load_first(rows_.row(row) + unit, used);
        }
        GATEWISE_INLINE void set(Index row, Index unit, Index used, Vec h) const {
            store_first(next_[row] + unit, h, used);
        }

      private:
        const ForwardOf<float>& call_;
        const Share& share_;
        Inputs rows_;
        float** next_;
    };

    // The products of all gates of `count` rows, plus the bias, to their slots.
    template <int G, typename Rows>
    static void project(const Rows& rows, Index count, const Panels& w, float* const* to, Index slot,
                        const float* bias) {
        multiply_panels<G>(ToSlots{to, slot, w.begin, bias}, rows.at(0), count, w, w.begin, w.end - w.begin);
    }

    // body(row, panel, products): for `count` rows the products of all gates, a vector of each.
    template <int G, typename Rows, typename Body>
    static void multiply(const Rows& rows, Index count, const Panels& w, const Body& body) {
        for_blocks<G>(0, count, w.begin, w.end, body, [&](const ToBlock<G>& to, Index row, Index high, Index panel,
                                                          Index wide) {
            multiply_panels<G>(to, rows.at(row), high, w, panel, wide);
        });
    }

    // Gradients of gates, laid out as the gates are.
    class Gates {
      public:
        static Index size(Index rows, GateRow row, Index) { return rows * row.width; }
        Gates(float* memory, GateRow row, Index) : data_(memory), row_(row) {}
        void clear_padding(Index, Index) const {}
        GATEWISE_INLINE void set(Index row, Index slot, Index unit, Index, Vec v) const {
            store(this->row(row) + slot * row_.slot + unit, v);
        }
        GATEWISE_INLINE Vec at(Index row, Index slot, Index unit) const {
            return load(this->row(row) + slot * row_.slot + unit);
        }
        GATEWISE_INLINE float* row(Index i) const { return data_ + i * row_.width; }
        Index slot_size() const { return row_.slot; }
        Index width() const { return row_.width; }

      private:
        float* data_;
        GateRow row_;
    };

    // Packed numbers of a slot's weights in a panel, for multiply_back(): a panel has a segment for each slot.
    static Index segment_size(Index hidden_size) { return hidden_size * lanes; }

    // A slot's weights (rows, columns) as one segment of panels, each `panel` numbers long.
    static void pack_back(float* packed, Index panel, const float* matrix, Index rows, Index columns, Index begin,
                          Index end) {
        pack_rows(packed, panel, matrix, rows, columns, begin, end);
    }

    // body(row, panel, sum): for `count` rows from `first` on the sum of `slots` slots from `slot` on times their weights.
    template <typename Body>
    static void multiply_back(const Gates& gates, Index first, Index count, Index slot, int slots,
                              const BackPanels& w, const Body& body) {
        const auto use = [&](Index row, Index panel, const Vec* sum) GATEWISE_INLINE { body(row, panel, *sum); };
        for_blocks<1>(first, first + count, w.begin, w.end, use, [&](const ToBlock<1>& to, Index row, Index high,
                                                                     Index panel, Index wide) {
            multiply_panels_back(to, gates, row, high, slot, slots, w, panel, wide);
        });
    }

    // dweights[unit][c] = sum over rows of gates[row][column + unit] * right[row][c], for `units` units and `depth`
    // inputs c: gradients of weights as the layer keeps them.
    static void write_outer_products(float* dweights, const Gates& gates, Index column, Index units,
                                     const float* const* right, Index rows, Index depth) {
        for_outer_tiles(units, depth, 0, panels(depth), [&](auto partial, auto mr, auto np, Index unit, Index panel,
                                                            Index used) {
            constexpr int MR = mr.value, NP = np.value;
            Tile<MR, NP, 1> tile{};
            accumulate_outer<partial.value, MR, NP>(
                tile, [&](Index row, int m) { return gates.row(row)[column + unit + m]; },
                [&](Index row) { return right[row] + panel * lanes; }, rows, used);
            for (int m = 0; m < MR; ++m)
                for (int p = 0; p < NP; ++p)
                    store_first(dweights + (unit + m) * depth + (panel + p) * lanes, tile[m][p][0],
                                p == NP - 1 ? used : lanes);
        });
    }

    // Rows that sums over a chunk's rows are padded to.
    static Index sum_rows(Index rows) { return rows; }

    // Sums over a chunk's rows, of what the gates had as inputs times their gradients. What a tile reads is copied
    // first, so that it lies together: rows that are a multiple of 4 KB apart share one set of a cache (backward at
    // H=512 and H=1024: 1.2 times as fast).
    class RowSums {
      public:
        static Index size(const Shape& s, Index rows, GateRow) {
            return rows * (std::max(s.I, s.H) + most_panels * lanes);
        }
        RowSums(float* memory, const Share&, GateRow, Index rows)
            : right_(memory), left_(memory + rows * most_panels * lanes) {}

        void take_right(const Gates&, Index) const {}

        // As blocks of tile_rows columns (the last one may have fewer), the rows of each one after the other.
        void take_left(const float* const* left, Index depth, Index rows) const {
            for (Index i = 0; i < depth; i += tile_rows) {
                const Index width = std::min<Index>(tile_rows, depth - i);
                float* to = left_ + i * rows;
                for (Index row = 0; row < rows; ++row, to += width) std::copy_n(left[row] + i, width, to);
            }
        }

        // sums[i][c] = or += sum over rows of left[row][i] * gates[row][column + c], for i < depth, c < width vectors.
        template <bool Add>
        void sum(float* sums, Index stride, const float* const*, Index depth, Index rows, const Gates& gates,
                 Index column, Index width) const {
            const auto sum_panels = [&](auto np, Index p) {
                const Right right = take_right<np.value>(gates, column + p * lanes, rows, depth >= often);
                Index i = 0;
                for (; i + tile_rows <= depth; i += tile_rows)
                    sum_tile<Add, tile_rows, np.value>(sums + i * stride + p * lanes, stride, i, right, rows);
                with_constant<tile_rows>(depth - i, [&](auto mr) {
                    sum_tile<Add, mr.value, np.value>(sums + i * stride + p * lanes, stride, i, right, rows);
                });
            };
            Index p = 0;
            for (; p + most_panels <= width; p += most_panels) sum_panels(Constant<most_panels>{}, p);
            for (; p < width; ++p) sum_panels(Constant<1>{}, p);
        }

      private:
        struct Right {
            const float* data;
            Index stride;
        };

        // Some columns of the gates, copied if it is worth that.
        template <int NP>
        Right take_right(const Gates& gates, Index column, Index rows, bool copy) const {
            const Right there{gates.row(0) + column, gates.width()};
            if (!copy) return there;
            for (Index row = 0; row < rows; ++row)
                for (int p = 0; p < NP; ++p)
                    store(right_ + (row * NP + p) * lanes, load(there.data + row * there.stride + p * lanes));
            return {right_, NP * lanes};
        }

        template <bool Add, int MR, int NP>
        void sum_tile(float* sums, Index stride, Index i, Right right, Index rows) const {
            if constexpr (Add)
                for (int m = 0; m < MR; ++m)
                    for (int p = 0; p < NP; ++p) __builtin_prefetch(sums + m * stride + p * lanes, 1);
            Tile<MR, NP, 1> tile{};
            const float* left = left_ + i * rows;
            accumulate_outer<false, MR, NP>(
                tile, [&](Index row, int m) { return left[row * MR + m]; },
                [&](Index row) { return right.data + row * right.stride; }, rows, lanes);
            for (int m = 0; m < MR; ++m)
                for (int p = 0; p < NP; ++p) {
                    float* to = sums + m * stride + p * lanes;
                    store(to, Add ? load(to) + tile[m][p][0] : tile[m][p][0]);
                }
        }

      private:
        static constexpr int most_panels = panels_at_once<tile_rows, 1>();
        static constexpr Index often = 128;  // uses of a column, from which on it is worth a copy
        float *right_, *left_;
    };

  private:
    template <int G, typename To>
    static void multiply_panels(const To& to, const RowsAt& rows, Index count, const Panels& w,
                                Index panel, Index panels) {
        if (!w.packed)
            return multiply_tiles_unpacked<G>(to, rows, count, w.depth, w.matrix + panel * lanes * w.depth,
                                              w.units * w.depth, w.units - panel * lanes, panels);
        const float* packed = w.packed + (panel - w.begin) * panel_size(w.depth, G);
        const Index used = lanes_used(w.units, panel + panels - 1);
        const bool squeezed = w.squeezed && squeezed_vectors(G, used) < G;
        const Index others = panels - squeezed;
        if (others > 0) multiply_tiles<G>(to, rows, count, w.depth, packed, others);
        if constexpr (G > 1)
            if (squeezed)
                multiply_squeezed<G>(to, rows, count, w.depth, packed + others * panel_size(w.depth, G), others, used);
    }

    // The products of a squeezed panel, which are put where they belong when some rows have theirs.
    template <int G, typename To>
    __attribute__((noinline)) static void multiply_squeezed(const To& to, const RowsAt& rows, Index count, Index depth,
                                                            const float* packed, Index panel, Index used) {
        constexpr Index most_rows = 24;
        Vec products[most_rows * (G - 1) + 1];  // one more, for what is loaded of the last gate
        for (Index row = 0; row < count; row += most_rows) {
            const Index high = std::min(most_rows, count - row);
            with_constant<G>(squeezed_vectors(G, used), [&](auto vectors) {
                constexpr int V = vectors.value;
                multiply_tiles<V>(ToBlock<V>{products, high}, rows.from(row), high, depth, packed, 1);
                for (Index i = 0; i < high; ++i)
                    for (int g = 0; g < G; ++g) {
                        const float* at = reinterpret_cast<const float*>(products + i * V) + g * used;
                        to.put(row + i, panel, g, first(load(at), used));
                    }
            });
        }
    }

    // A function of its own, for the reason that for_tiles_of() gives.
    __attribute__((noinline)) static void multiply_panels_back(const ToBlock<1>& to, const Gates& gates, Index first,
                                                               Index count, Index slot, int slots, const BackPanels& w,
                                                               Index panel, Index panels) {
        const auto row_at = [&](Index row, int i) { return gates.row(first + row) + (slot + i) * gates.slot_size(); };
        if (w.packed) {
            const float* packed = w.packed + (panel - w.begin) * w.size;
            for_tiles<1>(count, 0, panels, [&](auto mr, auto np, Index row, Index p) GATEWISE_INLINE {
                constexpr int MR = mr.value, NP = np.value;
                Tile<MR, NP, 1> tile{};
                for (int i = 0; i < slots; ++i) {
                    const float* from[MR];
                    for (int m = 0; m < MR; ++m) from[m] = row_at(row + m, i);
                    accumulate<MR, NP, 1>(tile, from, w.depth, packed + p * w.size + i * w.depth * lanes, w.size);
                }
                put_tile<MR, NP>(to, row, p, tile);
            });
        } else {
            for_outer_tiles(count, w.columns, panel, panel + panels, [&](auto partial, auto mr, auto np, Index row,
                                                                         Index p, Index used) {
                constexpr int MR = mr.value, NP = np.value;
                Tile<MR, NP, 1> tile{};
                for (int i = 0; i < slots; ++i) {
                    const float* from = row_at(row, i);
                    accumulate_outer<partial.value, MR, NP>(
                        tile, [&](Index k, int m) { return from[m * gates.width() + k]; },
                        [&](Index k) { return w.matrices[i] + k * w.columns + p * lanes; }, w.depth, used);
                }
                put_tile<MR, NP>(to, row, p - panel, tile);
            });
        }
    }

    template <int MR, int NP>
    GATEWISE_INLINE static void put_tile(const ToBlock<1>& to, Index row, Index panel, const Tile<MR, NP, 1>& tile) {
        for (int m = 0; m < MR; ++m)
            for (int p = 0; p < NP; ++p) to.put(row + m, panel + p, 0, tile[m][p][0]);
    }
};

}  // namespace
}  // namespace gatewise
