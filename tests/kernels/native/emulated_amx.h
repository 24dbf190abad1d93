// AMX's tiles in plain memory: what a processor with AVX-512 for bfloat16 needs to test the kernels for AMX. Included
// before everything else, it takes the place of the compiler's intrinsics, and of the questions to processor and system.
#pragma once

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>

namespace emulated_amx {
namespace {

constexpr int rows = 16, row_bytes = 64, pairs = 16;

struct Tile {
    unsigned char bytes[rows][row_bytes];
};

inline Tile& tile(int number) {
    static thread_local Tile tiles[8];
    return tiles[number];
}

template <typename Number>
float number(const Tile& tile, int row, int column) {
    Number bits;
    std::memcpy(&bits, tile.bytes[row] + column * sizeof bits, sizeof bits);
    const std::uint32_t wide = static_cast<std::uint32_t>(bits) << (32 - 8 * sizeof bits);
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
}

inline void zero(int number) { std::memset(tile(number).bytes, 0, sizeof(Tile)); }

inline void load(int number, const void* from, long stride) {
    for (int r = 0; r < rows; ++r)
        std::memcpy(tile(number).bytes[r], static_cast<const unsigned char*>(from) + r * stride, row_bytes);
}

inline void store(int number, void* to, long stride) {
    for (int r = 0; r < rows; ++r)
        std::memcpy(static_cast<unsigned char*>(to) + r * stride, tile(number).bytes[r], row_bytes);
}

// sums[m][n] += the products of row m of `left` and of column n of `right`, whose pairs lie beside each other.
inline void add_products(int sums, int left, int right) {
    for (int m = 0; m < rows; ++m)
        for (int n = 0; n < rows; ++n) {
            float sum = number<std::uint32_t>(tile(sums), m, n);
            for (int k = 0; k < pairs; ++k)
                for (int i = 1; i >= 0; --i)
                    sum = std::fma(number<std::uint16_t>(tile(left), m, 2 * k + i),
                                   number<std::uint16_t>(tile(right), k, 2 * n + i), sum);
            std::memcpy(tile(sums).bytes[m] + n * sizeof sum, &sum, sizeof sum);
        }
}

template <typename... Arguments>
long allowed(Arguments...) {
    return 0;
}

}  // namespace
}  // namespace emulated_amx

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) static_cast<void>(config)
#define _tile_release() static_cast<void>(0)
#define _tile_zero(number) emulated_amx::zero(number)
#define _tile_loadd(number, from, stride) emulated_amx::load(number, from, stride)
#define _tile_stored(number, to, stride) emulated_amx::store(number, to, stride)
#define _tile_dpbf16ps(sums, left, right) emulated_amx::add_products(sums, left, right)

#define __get_cpuid_count(leaf, part, a, b, c, d) (*(a) = *(b) = *(c) = *(d) = ~0u, true)
#define syscall emulated_amx::allowed
