// Matrix products on register tiles, and the packing of weights that they read.
//
// A tile is MR rows by NP panels by G gates of one vector each; it is accumulated in registers. Panels are a vector wide.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "vec.h"

namespace gatewise {
namespace {

template <int Value>
using Constant = std::integral_constant<int, Value>;

template <int MR, int NP, int G>
using Tile = Vec[MR][NP][G];

inline Index panels(Index columns) { return (columns + lanes - 1) / lanes; }
inline Index padded(Index columns) { return panels(columns) * lanes; }

// Lanes of panel p that hold columns, the others being padding.
inline Index lanes_used(Index columns, Index p) { return std::min<Index>(lanes, columns - p * lanes); }

// Gates whose products are made together. Four take turns, two at a time: each panel then serves more rows while it
// streams by (an LSTM's inference at T=200, B=16, H=512 takes 0.9 of the time, at T=500, B=4, H=96 0.8).
constexpr int gates_together(int gates) { return gates == 4 ? 2 : gates; }

// Rows of a tile of G gates: as many as leave the sums of those together in the registers.
template <int G>
constexpr int rows_of_tile() {
    return std::min(G == 1 ? tile_rows : tall_tile_rows, tile_vectors / gates_together(G));
}

// Panels that a tile of MR rows and G gates takes at once, so that its sums fill the registers and hide the latency. Of
// four gates at most two: more streams than that are slower (B=1).
template <int MR, int G>
constexpr int panels_at_once() {
    return std::clamp(tile_vectors / (MR * G), 1, G == 4 ? 2 : 4);
}

// Bodies are copied where they are used: of what is reached through a reference, the compiler believes that each store can
// change it (T=784, B=64, I=1, H=128, forward with saved gates: 1.1 times as long). To pass them by value takes copies in
// memory, which wait for what was just stored (B=1, H=16: 30 ns a step of 100).

// body(Constant<MR>, Constant<NP>, row, panel) for tiles that cover `rows` rows and the panels [begin, end).
// Rows run innermost, so that a panel stays in the first cache while all rows use it. A function of its own for each use:
// within a larger one the compiler has too few registers for the sums (T=100, B=64, I=128, H=128: 1.2 times as long).
template <int G, int MR, typename Body>
__attribute__((noinline)) void for_tiles_of(Index first_row, Index last_row, Index begin, Index end, const Body& given) {
    const Body body = given;
    constexpr int NP = panels_at_once<MR, G>();
    Index p = begin;
    for (; p + NP <= end; p += NP)
        for (Index row = first_row; row < last_row; row += MR) body(Constant<MR>{}, Constant<NP>{}, row, p);
    const Index left = end - p;
    for (Index row = first_row; left > 0 && row < last_row; row += MR) {
        if constexpr (NP > 3)
            if (left == 3) body(Constant<MR>{}, Constant<3>{}, row, p);
        if constexpr (NP > 2)
            if (left == 2) body(Constant<MR>{}, Constant<2>{}, row, p);
        if constexpr (NP > 1)
            if (left == 1) body(Constant<MR>{}, Constant<1>{}, row, p);
    }
}

// body(Constant<count>) for a count below Most; nothing for 0.
template <int Most, typename Body>
void with_constant(Index count, const Body& body) {
    static_assert(Most <= 8);
    switch (count) {
        case 1: return body(Constant<1>{});
        case 2: if constexpr (Most > 2) return body(Constant<2>{}); break;
        case 3: if constexpr (Most > 3) return body(Constant<3>{}); break;
        case 4: if constexpr (Most > 4) return body(Constant<4>{}); break;
        case 5: if constexpr (Most > 5) return body(Constant<5>{}); break;
        case 6: if constexpr (Most > 6) return body(Constant<6>{}); break;
        case 7: if constexpr (Most > 7) return body(Constant<7>{}); break;
    }
}

template <int G, typename Body>
void for_tiles(Index rows, Index begin, Index end, const Body& body) {
    constexpr int height = rows_of_tile<G>();
    const Index whole = rows - rows % height;
    if (whole > 0) for_tiles_of<G, height>(0, whole, begin, end, body);
    with_constant<height>(rows - whole, [&](auto mr) { for_tiles_of<G, mr.value>(whole, rows, begin, end, body); });
}

// tile[m][p][g] += sum over k of rows[m][k] * panel[k][p][g]; panel p begins p * panel_stride after the first, and its
// depth k at k * G * lanes.
template <int MR, int NP, int G>
GATEWISE_INLINE inline void accumulate(Tile<MR, NP, G>& tile, const float* const* rows, Index depth,
                                       const float* panel, Index panel_stride) {
    const float* a[MR];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) a[m] = rows[m];
    for (Index k = 0; k < depth; ++k, panel += G * lanes) {
        // The smaller side waits in registers while the other one streams by.
        if constexpr (NP * G <= MR) {
            Vec w[NP][G];
#pragma GCC unroll 4
            for (int p = 0; p < NP; ++p)
#pragma GCC unroll 4
                for (int g = 0; g < G; ++g) w[p][g] = load(panel + p * panel_stride + g * lanes);
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) {
                const Vec v = broadcast(a[m][k]);
#pragma GCC unroll 4
                for (int p = 0; p < NP; ++p)
#pragma GCC unroll 4
                    for (int g = 0; g < G; ++g) tile[m][p][g] += v * w[p][g];
            }
        } else {
            Vec v[MR];
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) v[m] = broadcast(a[m][k]);
#pragma GCC unroll 4
            for (int p = 0; p < NP; ++p)
#pragma GCC unroll 4
                for (int g = 0; g < G; ++g) {
                    const Vec w = load(panel + p * panel_stride + g * lanes);
#pragma GCC unroll 8
                    for (int m = 0; m < MR; ++m) tile[m][p][g] += v[m] * w;
                }
        }
    }
}

// tile[m][p][0] += sum over k of left(k, m) * right(k)[p * lanes ...]: a sum of outer products. The last panel may be
// partial: then only `used` of its lanes are read.
template <bool Partial, int MR, int NP, typename Left, typename Right>
GATEWISE_INLINE inline void accumulate_outer(Tile<MR, NP, 1>& tile, const Left& left, const Right& right, Index count,
                                             Index used) {
    for (Index k = 0; k < count; ++k) {
        const float* from = right(k);
        Vec w[NP];
#pragma GCC unroll 4
        for (int p = 0; p < NP; ++p)
            w[p] = Partial && p == NP - 1 ? load_first(from + p * lanes, used) : load(from + p * lanes);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
            const Vec v = broadcast(left(k, m));
#pragma GCC unroll 4
            for (int p = 0; p < NP; ++p) tile[m][p][0] += v * w[p];
        }
    }
}

// Rows of numbers: row i is at pointers[i], or, without pointers, i times a stride after the first.
struct RowsAt {
    const float* const* pointers;
    const float* data;
    Index stride;

    GATEWISE_INLINE const float* operator[](Index i) const { return pointers ? pointers[i] : data + i * stride; }
    RowsAt from(Index i) const { return {pointers ? pointers + i : nullptr, data + i * stride, stride}; }
};

// Where products go: to the slots of rows, in the panels from `first` on, plus a bias that lies as a row does.
struct ToSlots {
    float* const* rows;
    Index slot, first;
    const float* bias;

    GATEWISE_INLINE void put(Index row, Index panel, int gate, Vec v) const {
        const Index at = (first + panel) * lanes + gate * slot;
        store(rows[row] + at, load(bias + at) + v);
    }
};

// Or together, as products[panel][row][gate].
template <int G>
struct ToBlock {
    Vec* products;
    Index rows;

    GATEWISE_INLINE void put(Index row, Index panel, int gate, Vec v) const {
        products[(panel * rows + row) * G + gate] = v;
    }
};

// The products of `count` rows with all gates of some panels, packed as pack_transposed() does.
template <int G, typename To>
void multiply_tiles(const To& to, const RowsAt& rows, Index count, Index depth, const float* packed, Index panels) {
    constexpr int together = gates_together(G), turns = G / together;
    const Index turn_size = depth * together * lanes;
    for_tiles<G>(count, 0, panels, [=](auto mr, auto np, Index row, Index panel) GATEWISE_INLINE {
        constexpr int MR = mr.value, NP = np.value;
        const float* from[MR];
        for (int m = 0; m < MR; ++m) from[m] = rows[row + m];
        const float* weights = packed + panel * turns * turn_size;
        if constexpr (MR * NP * G <= tile_vectors) {
            Tile<MR, NP * turns, together> tile{};
            accumulate<MR, NP * turns, together>(tile, from, depth, weights, turn_size);
            for (int m = 0; m < MR; ++m)
                for (int p = 0; p < NP; ++p)
                    for (int g = 0; g < G; ++g)
                        to.put(row + m, panel + p, g, tile[m][p * turns + g / together][g % together]);
        } else {
            for (int turn = 0; turn < turns; ++turn) {
                Tile<MR, 1, together> tile{};
                accumulate<MR, 1, together>(tile, from, depth, weights + turn * turn_size, turn_size);
                for (int m = 0; m < MR; ++m)
                    for (int g = 0; g < together; ++g) to.put(row + m, panel, turn * together + g, tile[m][0][g]);
            }
        }
    });
}

// A body in two parts: all units of a block go through the first before one goes through the second. They are computed
// beside each other, where each would wait for its own gates (T=64, B=16, H=33: 0.9 of the time).
template <typename Begin, typename End>
struct TwoParts {
    Begin begin;
    End end;
};
template <typename Begin, typename End>
TwoParts(Begin, End) -> TwoParts<Begin, End>;

// each(part) for the parts of a body.
template <typename Body, typename Each>
GATEWISE_INLINE inline void for_parts(const Body& body, const Each& each) {
    each(body);
}
template <typename Begin, typename End, typename Each>
GATEWISE_INLINE inline void for_parts(const TwoParts<Begin, End>& body, const Each& each) {
    each(body.begin);
    each(body.end);
}

// body(row, panel, products of G gates) for the rows [first, last) and the panels [begin, end), block by block:
// multiply(to, row, rows, panel, panels) makes the products of a block from that row and panel on, and then the body is
// done for all of them (a GRU's inference takes 0.95 to 1.0 of the time that it takes with tile after tile). What is made
// of the products is compiled once, not for tiles of every size.
template <int G, typename Body, typename Multiply>
GATEWISE_INLINE inline void for_blocks(Index first, Index last, Index begin, Index end, const Body& given,
                                       const Multiply& multiply) {
    if (first == last) return;
    const Body body = given;
    constexpr Index most_rows = 24, most = most_rows * (G == 1 ? 3 : 1);  // rows times panels
    Vec products[most * G];
    const Index height = std::min(last - first, most_rows), width = most / height;
    for (Index p = begin; p < end; p += width)
        for (Index row = first; row < last; row += height) {
            const Index high = std::min(height, last - row), wide = std::min(width, end - p);
            multiply(ToBlock<G>{products, high}, row, high, p, wide);
            for_parts(body, [&](const auto& part) GATEWISE_INLINE {
                Vec* at = products;
                for (Index panel = p; panel < p + wide; ++panel)
                    for (Index i = 0; i < high; ++i, at += G) part(row + i, panel, at);
            });
        }
}

template <int... Lane>
GATEWISE_INLINE inline void interleave(Vec& a, Vec& b, std::integer_sequence<int, Lane...>) {
    const Vec low = __builtin_shufflevector(a, b, (Lane / 2 + Lane % 2 * lanes)...);
    b = __builtin_shufflevector(a, b, (Lane / 2 + Lane % 2 * lanes + lanes / 2)...);
    a = low;
}

// Transposes a square of vectors. Interleaving row i with row i + lanes / 2 moves each element's place, as the bits of
// (row, lane), around by one; after as many rounds as a lane has bits, row and lane have changed places.
GATEWISE_INLINE inline void transpose(Vec (&rows)[lanes]) {
#pragma GCC unroll 4
    for (int round = 1; round < lanes; round *= 2) {
        Vec next[lanes];
#pragma GCC unroll 8
        for (int i = 0; i < lanes / 2; ++i) {
            next[2 * i] = rows[i];
            next[2 * i + 1] = rows[i + lanes / 2];
            interleave(next[2 * i], next[2 * i + 1], std::make_integer_sequence<int, lanes>{});
        }
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) rows[i] = next[i];
    }
}

// Vectors that hold `used` units of each gate, one gate after the other.
inline Index squeezed_vectors(Index gates, Index used) { return (gates * used + lanes - 1) / lanes; }

// A weight matrix (gates * units, depth) as panels [unit / lanes][gates / together][depth][together][lanes], for y = W x
// with x (depth). Panels [begin, end) are written, the first of them at `packed`; lanes past the last unit are zero.
// Squeezed, the last panel's gates follow each other in fewer vectors, all together, where they fit.
inline void pack_transposed(float* packed, const float* weights, Index gates, Index together, Index units, Index depth,
                            Index begin, Index end, bool squeezed) {
    for (Index p = begin; p < end; ++p) {
        const Index used = lanes_used(units, p), few = squeezed ? squeezed_vectors(gates, used) : gates;
        const Index wide = few < gates ? used : lanes, turn = few < gates ? few : together;
        for (Index v = 0; v < few; ++v) {
            const float* rows[lanes];  // of each lane; null for none
            for (Index lane = 0; lane < lanes; ++lane) {
                const Index gate = (v * lanes + lane) / wide, unit = (v * lanes + lane) % wide;
                rows[lane] = gate < gates && unit < used ? weights + (gate * units + p * lanes + unit) * depth : nullptr;
            }
            float* to = packed + (((p - begin) * gates + v - v % turn) * depth + v % turn) * lanes;
            for (Index k = 0; k < depth; k += lanes) {
                const Index count = std::min<Index>(lanes, depth - k);
                Vec square[lanes] = {};
                for (Index lane = 0; lane < lanes; ++lane)
                    if (rows[lane]) square[lane] = load_first(rows[lane] + k, count);
                transpose(square);
                for (Index i = 0; i < count; ++i) store(to + (k + i) * turn * lanes, square[i]);
            }
        }
    }
}

// `rows` rows of a matrix (rows, columns) as one segment of panels, for x = g W with g (rows): row k of panel p at
// packed[(p - begin) * panel_stride + k * lanes]. Panels [begin, end) are written, padded with zeros.
inline void pack_rows(float* packed, Index panel_stride, const float* matrix, Index rows, Index columns, Index begin,
                      Index end) {
    for (Index p = begin; p < end; ++p) {
        const Index used = lanes_used(columns, p);
        for (Index k = 0; k < rows; ++k)
            store(packed + (p - begin) * panel_stride + k * lanes, load_first(matrix + k * columns + p * lanes, used));
    }
}

}  // namespace
}  // namespace gatewise
