// The logistic function and the hyperbolic tangent of a vector, to about one unit in the last place of float32.
//
// Both are safe at plus and minus infinity, and NaN stays NaN.
#pragma once

#include "vec.h"

namespace gatewise {
namespace {

// The numbers of the functions below, each in all lanes of a vector, which the instructions can read where it lies.
struct Numbers {
    Vec log2_e, rounder, ln2_high, ln2_low, seventh, sixth, fifth, fourth, third, second;
    Vec least, most, least_tanh, minus_zero, one, two;
};

template <int... Lane>
constexpr Vec in_lanes(float value, std::integer_sequence<int, Lane...>) {
    return Vec{(static_cast<void>(Lane), value)...};
}
constexpr Vec in_lanes(float value) { return in_lanes(value, std::make_integer_sequence<int, lanes>{}); }

// From memory, anew for each vector: as constants they would wait in registers while a tile is summed up, and push some
// of its sums out (half the speed).
GATEWISE_INLINE inline const Numbers& numbers() {
    static constexpr Numbers all{
        in_lanes(1.44269504f), in_lanes(12582912.0f), in_lanes(0.693359375f), in_lanes(-2.12194440e-4f),
        in_lanes(1.0f / 5040), in_lanes(1.0f / 720),  in_lanes(1.0f / 120),   in_lanes(1.0f / 24),
        in_lanes(1.0f / 6),    in_lanes(0.5f),        in_lanes(-87.0f),       in_lanes(87.0f),
        in_lanes(-40.0f),      in_lanes(-0.0f),       in_lanes(1.0f),         in_lanes(2.0f)};
    const Numbers* from = &all;
    asm volatile("" : "+r"(from));
    return *from;
}

// e^x = power + power * rest, with power = 2^k, k = round(x / ln 2), |f| <= ln 2 / 2 and rest = e^f - 1.
// Kept apart, so that e^x - 1 loses nothing near zero. Taylor's series to f^7 / 7! errs by 5e-9.
struct Exponential {
    Vec power, rest;
};

GATEWISE_INLINE inline Exponential exponential(Vec x, const Numbers& c) {  // -87 <= x <= 87
    const Vec rounder = c.rounder;  // 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits
    const Vec shifted = x * c.log2_e + rounder;
    const Vec k = shifted - rounder;
    const Vec f = (x - k * c.ln2_high) - k * c.ln2_low;  // ln 2 in two parts
    Vec p = c.seventh;
    p = p * f + c.sixth;
    p = p * f + c.fifth;
    p = p * f + c.fourth;
    p = p * f + c.third;
    p = p * f + c.second;
    const Vec power = reinterpret_cast<Vec>((reinterpret_cast<IntVec>(shifted) << 23) + 0x3f800000);
    return {power, p * f * f + f};
}

// 1 / (1 + e^-x)
GATEWISE_INLINE inline Vec sigmoid(Vec x) {
    const Numbers& c = numbers();
    const Exponential e = exponential(clamp(-x, c.least, c.most), c);
    const Vec one = c.one;
    return one / (one + e.power + e.power * e.rest);
}

// (1 - e^-2|x|) / (1 + e^-2|x|), with the sign of x
GATEWISE_INLINE inline Vec tanh(Vec x) {
    const Numbers& c = numbers();
    const IntVec sign = reinterpret_cast<IntVec>(c.minus_zero);
    const Vec a = reinterpret_cast<Vec>(reinterpret_cast<IntVec>(x) | sign) * c.two;  // -2|x|
    const Exponential e = exponential(a < c.least_tanh ? c.least_tanh : a, c);
    const Vec m = e.power * e.rest + (e.power - c.one);
    const Vec t = m / (c.two + m);
    return reinterpret_cast<Vec>((reinterpret_cast<IntVec>(t) & ~sign) | (reinterpret_cast<IntVec>(x) & sign));
}

}  // namespace
}  // namespace gatewise
