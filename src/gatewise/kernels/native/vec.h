// A vector of floats as wide as the instruction set's registers, and the few operations that the kernels need.
//
// +, -, *, / and the comparisons are those of the compiler's vector types; a * b + c becomes one fused instruction.
// Everything is in an unnamed namespace: each instruction set's object file keeps its own copy.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#include "recurrence.h"

// For what runs once a tile or more often. Left to itself, the compiler inlines less the more kernels there are in one
// file, wherever that happens to be (reset = before took 1.3 times as long).
#define GATEWISE_INLINE __attribute__((always_inline))

namespace gatewise {
namespace {

#if defined(__AVX512F__)
constexpr int lanes = 16;
constexpr int tile_rows = 8, tall_tile_rows = 8, tile_vectors = 24;  // of 32 registers
#elif defined(__AVX2__)
constexpr int lanes = 8;
constexpr int tile_rows = 4, tall_tile_rows = 6, tile_vectors = 12;  // of 16 registers
#elif defined(__aarch64__)
constexpr int lanes = 4;
constexpr int tile_rows = 8, tall_tile_rows = 8, tile_vectors = 24;  // of 32 registers
#else
constexpr int lanes = 4;
constexpr int tile_rows = 4, tall_tile_rows = 6, tile_vectors = 12;  // of 16 registers
#endif

typedef float Vec __attribute__((vector_size(lanes * sizeof(float))));
typedef std::int32_t IntVec __attribute__((vector_size(lanes * sizeof(float))));
typedef float LooseVec __attribute__((vector_size(lanes * sizeof(float)), aligned(4), may_alias));

// value + 0 would be an addition: it changes -0.
GATEWISE_INLINE inline Vec broadcast(float value) { return value - Vec{}; }
GATEWISE_INLINE inline Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
GATEWISE_INLINE inline void store(float* p, Vec v) { *reinterpret_cast<LooseVec*>(p) = v; }

// The first `count` lanes (1 to `lanes`); loaded lanes past them are zero, and their memory is never touched.
GATEWISE_INLINE inline Vec load_first(const float* p, Index count) {
    if (count == lanes) return load(p);
#if defined(__AVX512F__)
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
#else
    Vec v{};
    std::memcpy(&v, p, static_cast<std::size_t>(count) * sizeof(float));
    return v;
#endif
}

GATEWISE_INLINE inline void store_first(float* p, Vec v, Index count) {
    if (count == lanes) return store(p, v);
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), v);
#else
    std::memcpy(p, &v, static_cast<std::size_t>(count) * sizeof(float));
#endif
}

// All bits of a lane where a flag is set; the first `count` flags, the others are read as false.
GATEWISE_INLINE inline IntVec load_flags(const bool* flags, Index count) {
    typedef std::uint8_t Bytes __attribute__((vector_size(lanes)));
    Bytes bytes{};
    if (count == lanes) std::memcpy(&bytes, flags, lanes);
    else std::memcpy(&bytes, flags, static_cast<std::size_t>(count));
    return __builtin_convertvector(bytes, IntVec) != 0;
}

template <int... Lane>
GATEWISE_INLINE inline IntVec numbered(std::integer_sequence<int, Lane...>) {
    return IntVec{Lane...};
}

// The first `count` lanes, zero in the others.
GATEWISE_INLINE inline Vec first(Vec v, Index count) {
    const IntVec is_first = numbered(std::make_integer_sequence<int, lanes>{}) < static_cast<std::int32_t>(count);
    return reinterpret_cast<Vec>(reinterpret_cast<IntVec>(v) & is_first);
}

template <int Half, int... Lane>
GATEWISE_INLINE inline float total_of(Vec v, std::integer_sequence<int, Lane...> all) {
    v += __builtin_shufflevector(v, v, ((Lane + Half) % lanes)...);
    if constexpr (Half > 1) return total_of<Half / 2>(v, all);
    else return v[0];
}
// The number itself, never left unrounded within a * b + c. For products that are added where the compiler sees both in
// one tile's function and not in another's: the bits must not depend on the shares of the threads.
GATEWISE_INLINE inline Vec rounded(Vec v) {
#if defined(__AVX512F__)
    asm("" : "+v"(v));
#elif defined(__x86_64__)
    asm("" : "+x"(v));
#elif defined(__aarch64__)
    asm("" : "+w"(v));
#else
    asm("" : "+m"(v));
#endif
    return v;
}

// The sum of all lanes.
GATEWISE_INLINE inline float total(Vec v) { return total_of<lanes / 2>(v, std::make_integer_sequence<int, lanes>{}); }

// NaN stays NaN.
GATEWISE_INLINE inline Vec clamp(Vec x, Vec low, Vec high) {
    x = x < low ? low : x;
    return x > high ? high : x;
}

}  // namespace
}  // namespace gatewise
