// Products of tiles by AMX, which has registers for eight of them.
#pragma once

#include <atomic>

#include "bfloat16_tiles.h"

namespace gatewise {
namespace {

struct AmxProducts {
    static constexpr Index rows_of_a_thread = tile_height;
    // Smaller than for float32: the tiles read weights as fast as the second cache can give them, from the third one it
    // takes five times as long, and twice the rows for each weight that is read are worth a barrier.
    static constexpr Index cached_weight_bytes = 512 * 1024;

    // All eight tiles of 16 rows of 64 bytes. A thread that leaves them set up is slower to switch to and from.
    class Session {
      public:
        Session() {
            struct alignas(64) {
                std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
                std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
                std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
            } config;
            static_assert(sizeof config == 64);
            std::atomic_signal_fence(std::memory_order_seq_cst);
            _tile_loadconfig(&config);
        }
        ~Session() { _tile_release(); }
        Session(const Session&) = delete;
    };

    template <int N, bool Add>
    static void multiply(float* sums, Index row, Index height, Tiles a, Tiles b, Depth depth) {
        const Index steps = depth.runs * depth.tiles_of_run();
        if (height > tile_height) multiply_tiles<2, N, Add>(sums, row, a, b, steps);
        else multiply_tiles<1, N, Add>(sums, row, a, b, steps);
    }

  private:
    // M rows of tiles.
    template <int M, int N, bool Add>
    static void multiply_tiles(float* sums, Index row, Tiles a, Tiles b, Index steps) {
        static_assert(M <= 2 && N <= 3);
        std::atomic_signal_fence(std::memory_order_seq_cst);  // what the tiles read has been written: they do not say so
        const Index row_bytes = row * static_cast<Index>(sizeof(float));
        constexpr Index number_bytes = sizeof(Bfloat16);
        const Index a_bytes = a.row * number_bytes, b_bytes = b.row * number_bytes;
        float* second = sums + tile_height * row;
        if constexpr (Add) {
            _tile_loadd(0, sums, row_bytes);
            if constexpr (N > 1) _tile_loadd(1, sums + lanes, row_bytes);
            if constexpr (N > 2) _tile_loadd(2, sums + 2 * lanes, row_bytes);
            if constexpr (M > 1) _tile_loadd(3, second, row_bytes);
            if constexpr (M > 1 && N > 1) _tile_loadd(4, second + lanes, row_bytes);
            if constexpr (M > 1 && N > 2) _tile_loadd(5, second + 2 * lanes, row_bytes);
        } else {
            _tile_zero(0);
            if constexpr (N > 1) _tile_zero(1);
            if constexpr (N > 2) _tile_zero(2);
            if constexpr (M > 1) _tile_zero(3);
            if constexpr (M > 1 && N > 1) _tile_zero(4);
            if constexpr (M > 1 && N > 2) _tile_zero(5);
        }
        const Bfloat16 *a0 = a.data, *a1 = a0 + a.block;
        const Bfloat16 *b0 = b.data, *b1 = b0 + b.block, *b2 = b1 + b.block;
        for (Index k = 0; k < steps; ++k) {
            // To and fro between the two rows of tiles, so that each of b's tiles is loaded once.
            _tile_loadd(6, a0, a_bytes);
            _tile_loadd(7, b0, b_bytes);
            _tile_dpbf16ps(0, 6, 7);
            if constexpr (M > 1) {
                _tile_loadd(6, a1, a_bytes);
                _tile_dpbf16ps(3, 6, 7);
            }
            if constexpr (N > 1) {
                _tile_loadd(7, b1, b_bytes);
                if constexpr (M > 1) {
                    _tile_dpbf16ps(4, 6, 7);
                    _tile_loadd(6, a0, a_bytes);
                }
                _tile_dpbf16ps(1, 6, 7);
            }
            if constexpr (N > 2) {
                _tile_loadd(7, b2, b_bytes);
                _tile_dpbf16ps(2, 6, 7);
                if constexpr (M > 1) {
                    _tile_loadd(6, a1, a_bytes);
                    _tile_dpbf16ps(5, 6, 7);
                }
            }
            a0 += a.step, a1 += a.step;
            b0 += b.step, b1 += b.step, b2 += b.step;
        }
        _tile_stored(0, sums, row_bytes);
        if constexpr (N > 1) _tile_stored(1, sums + lanes, row_bytes);
        if constexpr (N > 2) _tile_stored(2, sums + 2 * lanes, row_bytes);
        if constexpr (M > 1) _tile_stored(3, second, row_bytes);
        if constexpr (M > 1 && N > 1) _tile_stored(4, second + lanes, row_bytes);
        if constexpr (M > 1 && N > 2) _tile_stored(5, second + 2 * lanes, row_bytes);
    }
};

using Products = AmxProducts;

}  // namespace
}  // namespace gatewise
