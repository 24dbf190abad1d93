// Vectors of bfloat16 numbers, and activations that are as precise as these deserve. Needs AVX-512 with BF16.
#pragma once

#include "vec.h"

namespace gatewise {
namespace {

inline __mmask32 first_numbers(Index count) { return static_cast<__mmask32>((std::uint64_t{1} << count) - 1); }

// The first `count` numbers (1 to `lanes`), widened; the other lanes are zero.
inline Vec load_first(const Bfloat16* p, Index count) {
    const __m256i numbers = _mm256_maskz_loadu_epi16(static_cast<__mmask16>(first_numbers(count)), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16));
}

// The first `count` lanes, rounded; zeros behind them.
inline __m256i rounded(Vec v, Index count) {
    return reinterpret_cast<__m256i>(_mm512_maskz_cvtneps_pbh(static_cast<__mmask16>(first_numbers(count)), v));
}
inline void store(Bfloat16* p, Vec v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), rounded(v, lanes)); }
inline void store_first(Bfloat16* p, Vec v, Index count) {
    _mm256_mask_storeu_epi16(p, static_cast<__mmask16>(first_numbers(count)), rounded(v, count));
}

// 2^t, to 1e-7 of it, for t up to 126; at minus infinity it is 0.
inline Vec power_of_two(Vec t) {
    const Vec f = _mm512_reduce_ps(t, 0);  // t - k, k = round(t)
    Vec p = broadcast(0.001326472731307149f);
    p = p * f + 0.009671512991189957f;
    p = p * f + 0.05550733581185341f;
    p = p * f + 0.24022242426872253f;
    p = p * f + 0.6931470036506653f;
    p = p * f + 1.0f;
    return _mm512_scalef_ps(p, t - f);
}

// 1 / x, for x from 1 to 2^127: an estimate of 14 bits and a Newton step.
inline Vec reciprocal(Vec x) {
    const Vec estimate = _mm512_rcp14_ps(x);
    return estimate * (2.0f - x * estimate);
}

// 1 / (1 + e^-scale x). NaN stays NaN, as the second operand of min.
inline Vec logistic(Vec x, float scale) {
    return reciprocal(1.0f + power_of_two(_mm512_min_ps(broadcast(126.0f), x * (scale * -1.44269504f))));
}

}  // namespace
}  // namespace gatewise
