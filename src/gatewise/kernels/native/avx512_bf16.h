// Products of tiles by AVX-512's dot products of pairs: twice the multiply-adds of float32 an instruction.
#pragma once

#include "bfloat16_tiles.h"

namespace gatewise {
namespace {

struct DotProducts {
    static constexpr Index rows_of_a_thread = 4;
    static constexpr Index cached_weight_bytes = 3 * 512 * 1024;  // as in float32.h

    struct Session {};

    template <int N, bool Add>
    static void multiply(float* sums, Index row, Index height, Tiles a, Tiles b, Depth depth) {
        const auto multiply_from = [&](auto rows, Index first) {
            const Bfloat16* from = a.data + first / tile_height * a.block + first % tile_height * a.row;
            multiply_rows<rows.value, N, Add>(sums + first * row, row, {from, a.block, a.step, a.row}, b, depth);
        };
        Index first = 0;
        for (; first + tile_rows <= height; first += tile_rows) multiply_from(Constant<tile_rows>{}, first);
        with_constant<tile_rows>(height - first, [&](auto rows) { multiply_from(rows, first); });
    }

  private:
    // MR rows of one row of tiles. A function of its own, for the reason that for_tiles_of() gives.
    template <int MR, int N, bool Add>
    __attribute__((noinline)) static void multiply_rows(float* sums, Index row, Tiles a, Tiles b, Depth depth) {
        Vec sum[MR][N] = {};
        if constexpr (Add)
            for (int m = 0; m < MR; ++m)
                for (int n = 0; n < N; ++n) sum[m][n] = load(sums + m * row + n * lanes);
        const Bfloat16 *left[MR], *right[N];
        for (int m = 0; m < MR; ++m) left[m] = a.data + m * a.row;
        for (int n = 0; n < N; ++n) right[n] = b.data + n * b.block;
        const Index tiles_of_run = depth.tiles_of_run(), steps = depth.runs * tiles_of_run;
        const Index last_pairs = (depth.numbers - (tiles_of_run - 1) * tile_depth + 1) / 2;  // of a run's last tile
        for (Index k = 0; k < steps; ++k) {
            const Index pairs = (k + 1) % tiles_of_run == 0 ? last_pairs : tile_depth / 2;
            for (Index pair = 0; pair < pairs; ++pair) {
                Pairs w[N];
#pragma GCC unroll 3
                for (int n = 0; n < N; ++n) w[n] = load_pairs(right[n] + k * b.step + pair * 2 * lanes);
#pragma GCC unroll 8
                for (int m = 0; m < MR; ++m) {
                    const Pairs v = broadcast_pair(left[m] + k * a.step + pair * 2);
#pragma GCC unroll 3
                    for (int n = 0; n < N; ++n) sum[m][n] = _mm512_dpbf16_ps(sum[m][n], w[n], v);
                }
            }
        }
        for (int m = 0; m < MR; ++m)
            for (int n = 0; n < N; ++n) store(sums + m * row + n * lanes, sum[m][n]);
    }

    using Pairs = __m512bh;
    GATEWISE_INLINE static Pairs load_pairs(const Bfloat16* p) {
        return reinterpret_cast<Pairs>(_mm512_loadu_si512(p));
    }
    GATEWISE_INLINE static Pairs broadcast_pair(const Bfloat16* p) {
        std::int32_t pair;
        std::memcpy(&pair, p, sizeof pair);
        return reinterpret_cast<Pairs>(_mm512_set1_epi32(pair));
    }
};

using Products = DotProducts;

}  // namespace
}  // namespace gatewise
