// The logistic function and the hyperbolic tangent of a vector, to about one unit in the last place of float32.
//
// Both are safe at plus and minus infinity, and NaN stays NaN.
#pragma once

#include "vec.h"

namespace gatewise {
namespace {

// e^x = power + power * rest, with power = 2^k, k = round(x / ln 2), |f| <= ln 2 / 2 and rest = e^f - 1.
// Kept apart, so that e^x - 1 loses nothing near zero. Taylor's series to f^7 / 7! errs by 5e-9.
struct Exponential {
    Vec power, rest;
};

GATEWISE_INLINE inline Exponential exponential(Vec x) {  // -87 <= x <= 87
    const Vec shift = broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits
    const Vec shifted = x * 1.44269504f + shift;
    const Vec k = shifted - shift;
    const Vec f = (x - k * 0.693359375f) - k * -2.12194440e-4f;  // ln 2 in two parts
    Vec p = broadcast(1.0f / 5040);
    p = p * f + 1.0f / 720;
    p = p * f + 1.0f / 120;
    p = p * f + 1.0f / 24;
    p = p * f + 1.0f / 6;
    p = p * f + 0.5f;
    IntVec bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3f800000;
    Vec power;
    std::memcpy(&power, &bits, sizeof power);
    return {power, p * f * f + f};
}

// 1 / (1 + e^-x)
GATEWISE_INLINE inline Vec sigmoid(Vec x) {
    const Exponential e = exponential(clamp(-x, -87.0f, 87.0f));
    return 1.0f / (1.0f + e.power + e.power * e.rest);
}

// (1 - e^-2|x|) / (1 + e^-2|x|), with the sign of x
GATEWISE_INLINE inline Vec tanh(Vec x) {
    const Vec a = clamp(-2.0f * (x < 0.0f ? -x : x), -40.0f, 0.0f);
    const Exponential e = exponential(a);
    const Vec m = e.power * e.rest + (e.power - 1.0f);
    const Vec t = m / (2.0f + m);
    return x < 0.0f ? t : -t;
}

}  // namespace
}  // namespace gatewise
