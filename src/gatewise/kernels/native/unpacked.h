// Products straight from the layer's own weights, for calls with so few rows that packing costs more than it saves.
#pragma once

#include "matmul.h"

namespace gatewise {
namespace {

// Rows of w (units, depth) times MR vectors row(m) of x (depth).
template <int MR>
struct Product {
    template <typename Row>
    Product(const float* w, Index depth, const Row& row) : w(w), depth(depth) {
        for (int m = 0; m < MR; ++m) x[m] = row(m);
    }

    const float* w;
    Index depth;
    const float* x[MR];
};

// sums[i][m] = the sum of the products' vectors, of unit i and row m: its lanes are still to be added. Units from
// `used` on repeat the last one, so that no memory past the weights is touched.
template <int Units, int MR, int Count>
inline void multiply_rows(Vec (*sums)[MR], const Product<MR> (&products)[Count], Index first, Index used) {
    Vec sum[Units][MR] = {};
    for (const Product<MR>& product : products) {
        const Index depth = product.depth;
        const float* w[Units];
        for (int i = 0; i < Units; ++i) w[i] = product.w + std::min<Index>(first + i, used - 1) * depth;
        Index k = 0;
        const auto add_columns = [&](auto load_columns) {
            Vec x[MR];
#pragma GCC unroll 4
            for (int m = 0; m < MR; ++m) x[m] = load_columns(product.x[m] + k);
#pragma GCC unroll 16
            for (int i = 0; i < Units; ++i) {
                const Vec row = load_columns(w[i] + k);
#pragma GCC unroll 4
                for (int m = 0; m < MR; ++m) sum[i][m] += row * x[m];
            }
        };
        for (; k + lanes <= depth; k += lanes) add_columns([](const float* p) { return load(p); });
        if (k < depth) add_columns([&](const float* p) { return load_first(p, depth - k); });
    }
    for (int i = 0; i < Units; ++i)
        for (int m = 0; m < MR; ++m) sums[i][m] = sum[i][m];
}

// totals[m] = the sum of the products, for MR rows and the `used` units of a panel, one unit a lane.
template <int MR, int Count>
inline void multiply_panel(Vec (&totals)[MR], const Product<MR> (&products)[Count], Index used) {
    constexpr int units = lanes / (MR > 2 ? 4 : MR);  // whose sums are in registers at once
    Vec sums[lanes][MR];
    for (int first = 0; first < lanes; first += units)
        multiply_rows<units, MR, Count>(sums + first, products, first, used);
    for (int m = 0; m < MR; ++m) {
        Vec unit[lanes];
        for (int i = 0; i < lanes; ++i) unit[i] = sums[i][m];
        // Half of each vector is added to its other half, round by round, while the vectors of two units interleave.
#pragma GCC unroll 4
        for (int half = lanes / 2; half > 0; half /= 2)
#pragma GCC unroll 8
            for (int i = 0; i < half; ++i) {
                interleave(unit[i], unit[i + half], std::make_integer_sequence<int, lanes>{});
                unit[i] += unit[i + half];
            }
        totals[m] = unit[0];
    }
}

// body(Constant<MR>, row, panel): rows run innermost, so that a panel's weights stay in the first cache.
template <typename Body>
void for_unpacked_tiles(Index rows, Index begin, Index end, const Body& body) {
    for (Index panel = begin; panel < end; ++panel) {
        Index row = 0;
        for (; row + 4 <= rows; row += 4) body(Constant<4>{}, row, panel);
        switch (rows - row) {
            case 1: body(Constant<1>{}, row, panel); break;
            case 2: body(Constant<2>{}, row, panel); break;
            case 3: body(Constant<3>{}, row, panel); break;
        }
    }
}

// The products of `count` rows with G gates of some panels, from weights as the layer keeps them, those of a gate `gate`
// floats after the one before; `units` are in these panels. In the padding they are zero.
template <int G, typename To>
void multiply_tiles_unpacked(const To& to, const RowsAt& rows, Index count, Index depth, const float* weights,
                             Index gate, Index units, Index panels) {
    for_unpacked_tiles(count, 0, panels, [&](auto mr, Index row, Index panel) {
        constexpr int MR = mr.value;
        const Index used = std::min<Index>(lanes, units - panel * lanes);
        for (int g = 0; g < G; ++g) {
            const Product<MR> product(weights + g * gate + panel * lanes * depth, depth,
                                      [&](Index m) { return rows[row + m]; });
            Vec totals[MR];
            multiply_panel(totals, {product}, used);
            for (int m = 0; m < MR; ++m) to.put(row + m, panel, g, used == lanes ? totals[m] : first(totals[m], used));
        }
    });
}

// body(Partial, Constant<MR>, Constant<NP>, row, panel, used): tiles of sums of outer products, in the panels [begin,
// end) of `columns` columns. The last panel may be partial: it is a tile's only one, of which only `used` lanes are there.
template <typename Body>
void for_outer_tiles(Index rows, Index columns, Index begin, Index end, const Body& body) {
    const Index whole = std::clamp(columns / lanes, begin, end);
    for_tiles<1>(rows, begin, whole, [&](auto mr, auto np, Index row, Index panel) {
        body(std::false_type{}, mr, np, row, panel, lanes);
    });
    if (whole == end) return;
    const Index last = rows - rows % tile_rows;
    const auto partial = [&](auto mr, Index row) {
        body(std::true_type{}, mr, Constant<1>{}, row, whole, lanes_used(columns, whole));
    };
    for (Index row = 0; row < last; row += tile_rows) partial(Constant<tile_rows>{}, row);
    with_constant<tile_rows>(rows - last, [&](auto mr) { partial(mr, last); });
}

}  // namespace
}  // namespace gatewise
