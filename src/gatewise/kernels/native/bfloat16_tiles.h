// Bfloat16 arithmetic for the sweeps, on tiles; what the names mean is said in float32.h.
//
// A tile of sums is 16 rows by 16 columns of float32; it grows by the products of 16 rows and 16 columns over a depth
// of 32. All that is multiplied is brought to bfloat16 matrices whose rows are padded to whole tiles. `Products` says
// what multiplies them: AmxProducts (amx.h) or DotProducts (avx512_bf16.h). Their multiply<N, Add>() makes the sums of
// `height` rows (most_height at most) and N columns of tiles, `row` floats from one row to the next: of a's rows times
// b's columns over the depth, added with Add to what the sums are.
#pragma once

#include "bfloat16.h"
#include "plan.h"

namespace gatewise {
namespace {

constexpr Index tile_height = 16, tile_depth = 32;
constexpr Index tile_numbers = tile_height * tile_depth;
constexpr Index most_height = 2 * tile_height;  // rows of sums that are made at once

inline Index tiles(Index count, Index size) { return (count + size - 1) / size; }

// Where a factor's tiles lie: `block` numbers from one row (or column) of tiles to the next, `step` from one depth to
// the next, and `row` from one row of a tile to the next.
struct Tiles {
    const Bfloat16* data;
    Index block, step, row;
};

// What a product sums over: `runs` of `numbers` each, padded to whole tiles with zeros.
struct Depth {
    Index runs, numbers;

    Index tiles_of_run() const { return tiles(numbers, tile_depth); }
};

// Sixteen pairs of rows, of which `count` (up to 32) are there, as 16 vectors: lane i holds number i of both rows, of
// which the first `used` are there. The rest is zero. row(k) is the address of row k.
template <typename Row>
inline void take_pairs(Vec (&pairs)[lanes], Index count, Index used, const Row& row) {
    const auto mask = static_cast<__mmask16>(first_numbers(used));
    const auto widened = [&](Index k) {
        return k < count ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, row(k))) : _mm512_setzero_si512();
    };
    for (Index j = 0; j < lanes; ++j)
        pairs[j] = _mm512_castsi512_ps(_mm512_or_si512(widened(2 * j), _mm512_slli_epi32(widened(2 * j + 1), 16)));
}

inline void store_tile(Bfloat16* tile, const Vec (&rows)[lanes]) {
    for (Index i = 0; i < lanes; ++i) store(reinterpret_cast<float*>(tile) + i * lanes, rows[i]);
}

template <typename Products>
struct TiledBfloat16 {
    using Number = Bfloat16;
    using Weight = Bfloat16;
    using Panels = PanelsOf<Number, Weight>;
    using BackPanels = BackPanelsOf<Number, Weight>;
    using Session = typename Products::Session;

    static constexpr Index rows_of_a_thread = Products::rows_of_a_thread;
    static constexpr Index cached_weight_bytes = Products::cached_weight_bytes;

    // Large, for each chunk the sums are loaded and stored: 1024 rows at H=256.
    static constexpr Index backward_chunk_bytes = 4096 * 1024;
    static constexpr Index unpacked_forward_steps = 0, unpacked_forward_rows = 0, unpacked_backward_rows = 0;

    static Vec sigmoid(Vec x) { return logistic(x, 1.0f); }
    static Vec tanh(Vec x) { return 2.0f * logistic(x, 2.0f) - 1.0f; }

    static bool squeezes(Index) { return false; }

    static Index panel_size(Index depth, Index gates) { return tiles(depth, tile_depth) * gates * tile_numbers; }

    // As [panel][depth / 32][gates][16 pairs of the depth][lanes][2].
    static void pack(Bfloat16* packed, const Bfloat16* weights, Index gates, Index units, Index depth, Index begin,
                     Index end, bool) {
        for (Index p = begin; p < end; ++p)
            for (Index k = 0; k < depth; k += tile_depth)
                for (Index g = 0; g < gates; ++g, packed += tile_numbers) {
                    const Bfloat16* from = weights + (g * units + p * lanes) * depth + k;
                    const Index used = lanes_used(units, p), count = std::min(tile_depth, depth - k);
                    Vec pairs[lanes] = {};
                    for (Index lane = 0; lane < used; ++lane)
                        pairs[lane] = _mm512_castsi512_ps(
                            _mm512_maskz_loadu_epi16(first_numbers(count), from + lane * depth));
                    transpose(pairs);
                    store_tile(packed, pairs);
                }
    }

    class Matrix {
      public:
        // In floats. Whole tiles of rows are read, from any row on: up to a tile past the last one, whatever lies
        // there.
        static Index size(Index rows, Index columns) {
            return tiles(rows + tile_height, tile_height) * tile_height * stride_of(columns) / 2;
        }
        Matrix(float* memory, Index columns)
            : data_(reinterpret_cast<Bfloat16*>(memory)), columns_(columns), stride_(stride_of(columns)) {}

        // Zeros from the last panel to the end of the tile; who has the last panel clears them, once.
        void clear_padding(Index rows, Index panel_end) const {
            if (panel_end != panels(columns_) || padded(columns_) == stride_) return;
            for (Index row = 0; row < rows; ++row) set(row, padded(columns_), lanes, Vec{});
        }
        // Zeros behind the lanes that are used: what they would hold need not be finite.
        void set(Index row, Index column, Index used, Vec v) const {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(data_ + row * stride_ + column), rounded(v, used));
        }
        void set(Index row, const Bfloat16* numbers) const {
            Bfloat16* to = data_ + row * stride_;
            Index i = 0;
            for (; i + tile_depth <= columns_; i += tile_depth)
                _mm512_storeu_si512(to + i, _mm512_loadu_si512(numbers + i));
            if (i < columns_)
                _mm512_storeu_si512(to + i, _mm512_maskz_loadu_epi16(first_numbers(columns_ - i), numbers + i));
        }
        const Bfloat16* row(Index i) const { return data_ + i * stride_; }
        Index stride() const { return stride_; }

      private:
        static Index stride_of(Index columns) { return tiles(columns, tile_depth) * tile_depth; }

        Bfloat16* data_;
        Index columns_, stride_;
    };

    using Inputs = Matrix;

    // The state in float32, and rounded twice: as the last step left it, and as the step under way is making it, while
    // other threads still read the former.
    class State {
      public:
        static Index size(const Shape& s, Index rows, Index) {
            return rows * padded(s.H) + 2 * Matrix::size(rows, s.H);
        }
        State(float* memory, const ForwardOf<Bfloat16>& call, const Share& share, Index rows)
            : call_(call), share_(share), exact_(memory), slot_(padded(call.shape.H)),
              before_(memory + rows * slot_, call.shape.H),
              after_(memory + rows * slot_ + Matrix::size(rows, call.shape.H), call.shape.H) {}

        void start() {
            for (const Matrix& matrix : {before_, after_}) matrix.clear_padding(share_.rows(), share_.panel_end);
            for (Index row = 0; row < share_.rows(); ++row)
                for (Index p = share_.panel_begin; p < share_.panel_end; ++p) {
                    const Index used = lanes_used(call_.shape.H, p);
                    const Vec h = load_first(call_.h0.at(0, share_.row_begin + row) + p * lanes, used);
                    store(exact_ + row * slot_ + p * lanes, h);
                    after_.set(row, p * lanes, used, h);
                }
        }
        void find(Index t, Index) {
            std::swap(before_, after_);
            y_ = call_.y.at(t, share_.row_begin);
            y_row_ = call_.y.row;
        }
        const Matrix& rows() const { return before_; }
        Vec at(Index row, Index unit, Index) const { return load(exact_ + row * slot_ + unit); }
        void set(Index row, Index unit, Index used, Vec h) const {
            store(exact_ + row * slot_ + unit, h);
            after_.set(row, unit, used, h);
            store_first(y_ + row * y_row_ + unit, h, used);
        }

      private:
        const ForwardOf<Bfloat16>& call_;
        const Share& share_;
        float* exact_;
        Index slot_;
        Matrix before_, after_;
        Bfloat16* y_ = nullptr;  // of the step under way
        Index y_row_ = 0;
    };

    template <int G>
    static void project(const Matrix& rows, Index count, const Panels& w, float* const* to, Index slot,
                        const float* bias) {
        const ToSlots put{to, slot, 0, bias};
        multiply<G>(rows, count, w, [put](Index row, Index panel, const Vec* products) {
            for (int g = 0; g < G; ++g) put.put(row, panel, g, products[g]);
        });
    }

    template <int G, typename Body>
    static void multiply(const Matrix& rows, Index count, const Panels& w, const Body& body) {
        const Tiles a{rows.row(0), tile_height * rows.stride(), tile_depth, rows.stride()};
        multiply_rows<G>(a, 0, count, {1, w.depth}, w.packed, panel_size(w.depth, G), w.begin, w.end, body);
    }

    class Gates {
      public:
        static Index size(Index rows, GateRow row, Index hidden_size) {
            return tiles(rows + tile_height, tile_height) * tile_height * row_size(row, hidden_size) / 2;
        }
        Gates(float* memory, GateRow row, Index hidden_size)
            : data_(reinterpret_cast<Bfloat16*>(memory)), slot_(slot_size(hidden_size)), unit_end_(row.slot),
              row_(row_size(row, hidden_size)) {}

        // As of a matrix, at the end of each slot.
        void clear_padding(Index rows, Index panel_end) const {
            if (panel_end * lanes != unit_end_ || unit_end_ == slot_) return;
            for (Index row = 0; row < rows; ++row)
                for (Index slot = 0; slot < row_ / slot_; ++slot) set(row, slot, unit_end_, lanes, Vec{});
        }
        void set(Index row, Index slot, Index unit, Index used, Vec v) const {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(data_ + row * row_ + slot * slot_ + unit), rounded(v, used));
        }
        Vec at(Index row, Index slot, Index unit) const { return load_first(this->row(row, slot) + unit, lanes); }
        const Bfloat16* row(Index row, Index slot) const { return data_ + row * row_ + slot * slot_; }
        Index width() const { return row_; }
        Index slots() const { return row_ / slot_; }

      private:
        static Index slot_size(Index hidden_size) { return tiles(hidden_size, tile_depth) * tile_depth; }
        static Index row_size(GateRow row, Index hidden_size) { return row.width / row.slot * slot_size(hidden_size); }

        Bfloat16* data_;
        Index slot_, unit_end_, row_;
    };

    static Index segment_size(Index hidden_size) { return tiles(hidden_size, tile_depth) * tile_numbers; }

    static void pack_back(Bfloat16* packed, Index panel, const Bfloat16* matrix, Index rows, Index columns, Index begin,
                          Index end) {
        for (Index p = begin; p < end; ++p, packed += panel)
            for (Index k = 0; k < rows; k += tile_depth) {
                Vec pairs[lanes];
                take_pairs(pairs, rows - k, lanes_used(columns, p),
                           [&](Index i) { return matrix + (k + i) * columns + p * lanes; });
                store_tile(packed + k / tile_depth * tile_numbers, pairs);
            }
    }

    template <typename Body>
    static void multiply_back(const Gates& gates, Index first, Index count, Index slot, int slots, const BackPanels& w,
                              const Body& body) {
        const Tiles a{gates.row(first, slot), tile_height * gates.width(), tile_depth, gates.width()};
        const auto use = [&](Index row, Index panel, const Vec* sum) { body(row, panel, *sum); };
        multiply_rows<1>(a, first, count, {slots, w.depth}, w.packed, w.size, w.begin, w.end, use);
    }

    static Index sum_rows(Index rows) { return tiles(rows, tile_height) * tile_height; }

    // Both factors of these products have the rows of the chunk as their depth. They are laid out as tiles first:
    // [16 columns of a factor][32 rows of the chunk].
    class RowSums {
      public:
        static Index size(const Shape& s, Index rows, GateRow row) {
            const Index left = std::max(panels(s.I), panels(s.H)), right = row.width / lanes;
            return (left + right) * tiles(rows, tile_depth) * tile_numbers / 2;
        }
        RowSums(float* memory, const Share& share, GateRow row, Index rows)
            : right_(reinterpret_cast<Bfloat16*>(memory)),
              left_(right_ + row.width / lanes * tiles(rows, tile_depth) * tile_numbers), row_(row),
              panel_begin_(share.panel_begin), own_(share.panel_end - share.panel_begin) {}

        void take_right(const Gates& gates, Index rows) {
            block_ = tiles(rows, tile_depth) * tile_numbers;
            for (Index slot = 0; slot < gates.slots(); ++slot)
                for (Index p = 0; p < own_; ++p)
                    for (Index k = 0; k < rows; k += tile_depth) {
                        Vec pairs[lanes];
                        take_pairs(pairs, rows - k, lanes,
                                   [&](Index i) { return gates.row(k + i, slot) + (panel_begin_ + p) * lanes; });
                        store_tile(right_ + (slot * own_ + p) * block_ + k / tile_depth * tile_numbers, pairs);
                    }
        }

        void take_left(const Bfloat16* const* left, Index depth, Index rows) {
            for (Index p = 0; p < panels(depth); ++p)
                for (Index k = 0; k < rows; k += tile_depth) {
                    Vec pairs[lanes];
                    take_pairs(pairs, rows - k, lanes_used(depth, p), [&](Index i) { return left[k + i] + p * lanes; });
                    transpose(pairs);
                    store_tile(left_ + p * block_ + k / tile_depth * tile_numbers, pairs);
                }
        }

        template <bool Add>
        void sum(float* sums, Index stride, const Bfloat16* const*, Index depth, Index rows, const Gates&, Index column,
                 Index width) const {
            const Index slot = column / row_.slot, panel = column % row_.slot / lanes;
            const Bfloat16* right = right_ + (slot * own_ + panel - panel_begin_) * block_;
            const auto sum_columns = [&](auto columns, Index c) {
                constexpr int N = columns.value;
                const Tiles b{right + c * block_, block_, tile_numbers, tile_depth};
                for (Index i = 0; i < depth; i += most_height) {
                    const Tiles a{left_ + i / tile_height * block_, block_, tile_numbers, tile_depth};
                    Products::template multiply<N, Add>(sums + i * stride + c * lanes, stride,
                                                        std::min(most_height, depth - i), a, b, {1, rows});
                }
            };
            Index c = 0;
            for (; c + 3 <= width; c += 3) sum_columns(Constant<3>{}, c);
            for (; c < width; ++c) sum_columns(Constant<1>{}, c);
        }

      private:
        Bfloat16 *right_, *left_;
        GateRow row_;
        Index panel_begin_, own_;
        Index block_ = 0;  // numbers of a column of tiles
    };

  private:
    // body(row, panel, products of G gates): a's rows, which the caller counts from `first` on, times the panels.
    template <int G, typename Body>
    static void multiply_rows(Tiles a, Index first, Index count, Depth depth, const Bfloat16* packed, Index panel_size,
                              Index begin, Index end, const Body& body) {
        constexpr int NP = G == 1 ? 3 : 1;  // panels at once, so that there are up to three columns of tiles
        const auto multiply_panels = [&](auto np, Index p) {
            constexpr int N = np.value * G;
            const Body use = body;  // a copy of our own, so that the compiler knows that no store changes it
            // The columns are gates of one panel, which lie beside each other, or panels of one gate.
            const Tiles b{packed + (p - begin) * panel_size, G == 1 ? panel_size : tile_numbers, G * tile_numbers,
                          tile_depth};
            for (Index row = 0; row < count; row += most_height) {
                alignas(64) float sums[most_height * N * lanes];
                const Tiles rows{a.data + row * a.row, a.block, a.step, a.row};
                const Index height = std::min(most_height, count - row);
                Products::template multiply<N, false>(sums, N * lanes, height, rows, b, depth);
                Vec* const products = reinterpret_cast<Vec*>(sums);
                for_parts(use, [&](const auto& part) GATEWISE_INLINE {
                    for (Index m = 0; m < height; ++m)
                        for (int n = 0; n < np.value; ++n) part(first + row + m, p + n, products + m * N + n * G);
                });
            }
        };
        Index p = begin;
        for (; p + NP <= end; p += NP) multiply_panels(Constant<NP>{}, p);
        for (; p < end; ++p) multiply_panels(Constant<1>{}, p);
    }
};

}  // namespace
}  // namespace gatewise
