// The logistic function and the hyperbolic tangent of a vector, to about one unit in the last place of float32.
//
// Both are safe at plus and minus infinity, and NaN stays NaN.
#pragma once

#include "vec.h"

namespace gatewise {
namespace {

// The numbers of the functions below.
struct Numbers {
    float log2_e, rounder, ln2_high, ln2_low, seventh, sixth, fifth, fourth, third, second;
    float most, least_tanh, one, two;
};

// From memory, anew for each vector: as constants they would wait in registers while a tile is summed up, and push some
// of its sums out (half the speed).
GATEWISE_INLINE inline const Numbers& numbers() {
    static constexpr Numbers all{1.44269504f, 12582912.0f, 0.693359375f, -2.12194440e-4f, 1.0f / 5040,
                                 1.0f / 720,  1.0f / 120,  1.0f / 24,    1.0f / 6,        0.5f,
                                 87.0f,       -40.0f,      1.0f,         2.0f};
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
    const Vec rounder = broadcast(c.rounder);  // 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits
    const Vec shifted = x * c.log2_e + rounder;
    const Vec k = shifted - rounder;
    const Vec f = (x - k * c.ln2_high) - k * c.ln2_low;  // ln 2 in two parts
    Vec p = broadcast(c.seventh);
    p = p * f + c.sixth;
    p = p * f + c.fifth;
    p = p * f + c.fourth;
    p = p * f + c.third;
    p = p * f + c.second;
    IntVec bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000;
    Vec power;
    std::memcpy(&power, &bits, sizeof power);
    return {power, p * f * f + f};
}

// 1 / (1 + e^-x)
GATEWISE_INLINE inline Vec sigmoid(Vec x) {
    const Numbers& c = numbers();
    const Exponential e = exponential(clamp(-x, -c.most, c.most), c);
    const Vec one = broadcast(c.one);
    return one / (one + e.power + e.power * e.rest);
}

// (1 - e^-2|x|) / (1 + e^-2|x|), with the sign of x
GATEWISE_INLINE inline Vec tanh(Vec x) {
    const Numbers& c = numbers();
    const Vec two = broadcast(c.two);
    const Vec a = clamp(-two * (x < 0.0f ? -x : x), c.least_tanh, 0.0f);
    const Exponential e = exponential(a, c);
    const Vec m = e.power * e.rest + (e.power - c.one);
    const Vec t = m / (two + m);
    return x < 0.0f ? t : -t;
}

}  // namespace
}  // namespace gatewise
