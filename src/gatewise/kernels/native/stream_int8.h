// A step with int8 weights: products of bytes, summed in int32, gates in float32.
//
// A row w of a weight matrix is kept as w = scale * q, q whole and |q| <= 127, scale = max |w| / 127. A row v of the
// state is brought into the same form in each step, a row of the inputs into v = scale * (q + f / 254), |f| <= 127:
// with one byte they would cause most of the error. Bytes of v are held as q + 128, unsigned, as the processors'
// instructions want them; that adds 128 * sum(q of w) to each product, which is taken off beforehand. The sums are
// exact, so every instruction set finds the same. A row that holds an infinity or NaN gives NaN.
#pragma once

#include <cfloat>
#include <cmath>
#include <limits>

#include "activations.h"
#include "plan.h"
#include "stream.h"

namespace gatewise {
namespace {

using Byte = std::uint8_t;
typedef Byte ByteVec __attribute__((vector_size(lanes)));
typedef std::int16_t ShortVec __attribute__((vector_size(lanes * sizeof(float))));

constexpr float smallest_scaled = 1e-30f;  // rows below it count as zeros: 127 / max would be infinite

constexpr Index quad = 4;  // bytes that one lane multiplies at once
inline Index quads(Index depth) { return (depth + quad - 1) / quad; }

// acc + a0 * b0 + a1 * b1 + a2 * b2 + a3 * b3 in each lane, a of unsigned bytes and b of signed ones.
inline IntVec add_products(IntVec acc, IntVec a, IntVec b) {
#if defined(__AVX512VNNI__)
    return reinterpret_cast<IntVec>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(acc), reinterpret_cast<__m512i>(a),
                                                        reinterpret_cast<__m512i>(b)));
#elif defined(__AVXVNNI__)
    return reinterpret_cast<IntVec>(_mm256_dpbusd_avx_epi32(
        reinterpret_cast<__m256i>(acc), reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
#else
    // Even bytes and odd ones as 16-bit numbers, whose products are added in pairs.
    const IntVec even = a & 0x00ff00ff, odd = (a >> 8) & 0x00ff00ff;
    const ShortVec weights = reinterpret_cast<ShortVec>(b);
    const ShortVec weights_even = (weights << 8) >> 8, weights_odd = weights >> 8;
#if defined(__AVX512BW__)
    const auto pairs = [](IntVec x, ShortVec y) {
        return reinterpret_cast<IntVec>(_mm512_madd_epi16(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(y)));
    };
#elif defined(__AVX2__)
    const auto pairs = [](IntVec x, ShortVec y) {
        return reinterpret_cast<IntVec>(_mm256_madd_epi16(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(y)));
    };
#elif defined(__SSE2__)
    const auto pairs = [](IntVec x, ShortVec y) {
        return reinterpret_cast<IntVec>(_mm_madd_epi16(reinterpret_cast<__m128i>(x), reinterpret_cast<__m128i>(y)));
    };
#else
    const auto pairs = [](IntVec x, ShortVec y) {
        const IntVec wide = reinterpret_cast<IntVec>(y);
        return (x & 0xffff) * ((wide << 16) >> 16) + (x >> 16) * (wide >> 16);
    };
#endif
    return acc + pairs(even, weights_even) + pairs(odd, weights_odd);
#endif
}

// A weight matrix (3H, depth) in bytes, as panels [panel][quad of k][slots r z n][lanes][4], and of each row the scale
// and what its products begin with, as [panel][slots r z n][lanes].
struct Int8Matrix {
    std::int32_t* bytes;
    float* scale;
    std::int32_t* start;
    Index depth;

    Int8Matrix() = default;
    Int8Matrix(Arena& arena, Index units, Index depth)
        : bytes(arena.take<std::int32_t>(quads(depth) * 3 * padded(units))), scale(arena.take(3 * padded(units))),
          start(arena.take<std::int32_t>(3 * padded(units))), depth(depth) {}

    Index panel_size() const { return quads(depth) * 3 * lanes; }

    // From w (3 * units, depth).
    void pack(const float* w, Index units) const {
        std::fill_n(bytes, panels(units) * panel_size(), 0);
        std::fill_n(scale, 3 * padded(units), 0.0f);
        std::fill_n(start, 3 * padded(units), 0);
        for (Index row = 0; row < 3 * units; ++row) {
            const Index gate = row / units, panel = row % units / lanes, lane = row % units % lanes;
            const Index place = (panel * 3 + gate) * lanes + lane;
            auto* const to = reinterpret_cast<std::int8_t*>(bytes + panel * panel_size() + gate * lanes + lane);
            float largest = 0;
            bool finite = true;
            for (Index k = 0; k < depth; ++k) {
                largest = std::max(largest, std::fabs(w[row * depth + k]));
                finite = finite && std::isfinite(w[row * depth + k]);
            }
            scale[place] = finite ? largest / 127 : std::numeric_limits<float>::quiet_NaN();
            if (!finite || largest < smallest_scaled) continue;
            for (Index k = 0; k < depth; ++k) {
                const auto q = static_cast<std::int8_t>(std::lrint(w[row * depth + k] / largest * 127));
                to[k / quad * 3 * lanes * quad + k % quad] = q;
                start[place] -= 128 * q;
            }
        }
    }
};

// One layer's weights in bytes, and its biases: slots r, z (both biases added), n and hn, each padded.
struct Int8Layer {
    Int8Matrix ih, hh;
    float* bias;

    Int8Layer(Arena& arena, const StreamShape& s, Index layer)
        : ih(arena, s.H, s.inputs(layer)), hh(arena, s.H, s.H), bias(arena.take(4 * padded(s.H))) {}
};

// Rows of the batch in bytes, each with its scale.
struct Int8Rows {
    Byte* bytes;  // q + 128, (rows, padded depth)
    Byte* fine;   // f + 128, likewise; null: not kept
    float* scale;
    Index depth;

    Int8Rows(Arena& arena, Index rows, Index depth, bool fine)
        : bytes(arena.take<Byte>(rows * padded(depth))), fine(fine ? arena.take<Byte>(rows * padded(depth)) : nullptr),
          scale(arena.take(rows)), depth(depth) {}

    void set(const float* rows, Index count) const {
        for (Index i = 0; i < count; ++i) set_row(i, rows + i * depth);
    }

  private:
    void set_row(Index i, const float* from) const {
        IntVec top{};  // the largest magnitude, compared by its bits: NaN is above infinity, that above the rest
        for (Index k = 0; k < depth; k += lanes) {
            const IntVec bits = as_bits(load_first(from + k, std::min<Index>(lanes, depth - k))) & 0x7fffffff;
            top = bits > top ? bits : top;
        }
        std::int32_t top_bits = 0;
        for (int lane = 0; lane < lanes; ++lane) top_bits = top[lane] > top_bits ? top[lane] : top_bits;
        float largest;
        std::memcpy(&largest, &top_bits, sizeof largest);
        const bool finite = largest <= FLT_MAX;
        scale[i] = finite ? largest / 127 : std::numeric_limits<float>::quiet_NaN();
        const float inverse = finite && largest >= smallest_scaled ? 127 / largest : 0;
        const float shift = 12582912 + 128;  // 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits
        for (Index k = 0; k < depth; k += lanes) {
            const Vec v = load_first(from + k, std::min<Index>(lanes, depth - k)) * inverse, q = v + shift;
            store_bytes(bytes + i * padded(depth) + k, q);
            if (fine) store_bytes(fine + i * padded(depth) + k, (v - (q - shift)) * 254 + shift);
        }
    }

    static void store_bytes(Byte* to, Vec shifted) {
        const ByteVec low = __builtin_convertvector(as_bits(shifted) & 0xff, ByteVec);
        std::memcpy(to, &low, sizeof low);
    }
    static IntVec as_bits(Vec v) { return reinterpret_cast<IntVec>(v); }
};

template <int MR, int NP, int G>
using IntTile = IntVec[MR][NP][G];

class Int8Step {
  public:
    Int8Step(const StreamStep& call, float* workspace, int thread, int team, Barrier& barrier)
        : Int8Step(call, Arena(workspace), thread, team, barrier) {}

    static Index workspace_size(const StreamShape& s, int threads) {
        Arena counter(nullptr);
        Shared shared(counter, s);
        for (int i = 0; i < threads; ++i) Own own(counter, s);
        return counter.used();
    }

    void run() {
        Arena packed(const_cast<float*>(call_.packed));
        const Index layer_size = s_.B * s_.H;
        for (Index layer = 0; layer < s_.L; ++layer) {
            if (layer > 0) barrier_.wait(team_);  // the inputs are whole
            const Int8Layer weights(packed, s_, layer);
            const Int8Rows& inputs = layer == 0 ? own_.inputs : own_.inner_inputs;
            inputs.set(layer == 0 ? call_.x : call_.next + (layer - 1) * layer_size, s_.B);
            const float* h = call_.state + layer * layer_size;
            own_.states.set(h, s_.B);
            float* next = call_.next + layer * layer_size;
            if (s_.reset == Reset::after) {
                step_after(weights, inputs, h, next);
            } else {
                gates_before(weights, inputs, h);
                barrier_.wait(team_);  // r * h is whole
                own_.states.set(shared_.reset_state, s_.B);
                step_before(weights, h, next);
            }
        }
    }

  private:
    // What all threads write, each in its own panels; before: z and the candidate's inputs (B, padded H), r * h (B, H).
    struct Shared {
        float *z, *n, *reset_state;

        Shared(Arena& arena, const StreamShape& s) {
            const Index rows = s.reset == Reset::before ? s.B : 0;
            z = arena.take(rows * padded(s.H));
            n = arena.take(rows * padded(s.H));
            reset_state = arena.take(rows * s.H);
        }
    };

    // What each thread has of its own: that all bring all rows into bytes is cheaper than to wait for one another.
    struct Own {
        Int8Rows inputs, inner_inputs, states;  // inner: states of the layer below

        Own(Arena& arena, const StreamShape& s)
            : inputs(arena, s.B, s.I, true), inner_inputs(arena, s.B, s.H, false), states(arena, s.B, s.H, false) {}
    };

    Int8Step(const StreamStep& call, Arena arena, int thread, int team, Barrier& barrier)
        : call_(call), s_(call.shape), shared_(arena, s_), own_(of_thread(arena, thread)), team_(team),
          barrier_(barrier) {
        std::tie(panel_begin_, panel_end_) = part_of(panels(s_.H), thread, team);
    }

    Own of_thread(Arena& arena, int thread) const {
        for (int i = 0; i < thread; ++i) Own other(arena, s_);
        return Own(arena, s_);
    }

    void step_after(const Int8Layer& w, const Int8Rows& inputs, const float* h, float* next) const {
        for_tiles<3>(s_.B, panel_begin_, panel_end_, [&](auto mr, auto np, Index row, Index panel) {
            constexpr int MR = mr.value, NP = np.value;
            Tile<MR, NP, 3> x, recurrent;
            multiply<MR, NP, 3>(x, w.ih, 0, inputs, row, panel);
            multiply<MR, NP, 3>(recurrent, w.hh, 0, own_.states, row, panel);
            for (int m = 0; m < MR; ++m)
                for (int p = 0; p < NP; ++p) {
                    const Index unit = (panel + p) * lanes, used = lanes_used(s_.H, panel + p);
                    const Index at = (row + m) * s_.H + unit;
                    const Vec before = load_first(h + at, used);
                    const Vec r = sigmoid(x[m][p][0] + recurrent[m][p][0] + bias(w, 0, unit));                  // (1)
                    const Vec z = sigmoid(x[m][p][1] + recurrent[m][p][1] + bias(w, 1, unit));                  // (2)
                    const Vec hn = recurrent[m][p][2] + bias(w, 3, unit);
                    const Vec n = tanh(x[m][p][2] + bias(w, 2, unit) + r * hn);                                 // (3)
                    store_first(next + at, n + z * (before - n), used);                                         // (4)
                }
        });
    }

    // Gates r and z, r * h, and what the candidate has of the inputs.
    void gates_before(const Int8Layer& w, const Int8Rows& inputs, const float* h) const {
        for_tiles<3>(s_.B, panel_begin_, panel_end_, [&](auto mr, auto np, Index row, Index panel) {
            constexpr int MR = mr.value, NP = np.value;
            Tile<MR, NP, 3> x;
            Tile<MR, NP, 2> recurrent;
            multiply<MR, NP, 3>(x, w.ih, 0, inputs, row, panel);
            multiply<MR, NP, 2>(recurrent, w.hh, 0, own_.states, row, panel);
            for (int m = 0; m < MR; ++m)
                for (int p = 0; p < NP; ++p) {
                    const Index unit = (panel + p) * lanes, used = lanes_used(s_.H, panel + p);
                    const Index at = (row + m) * s_.H + unit, padded_at = (row + m) * padded(s_.H) + unit;
                    const Vec r = sigmoid(x[m][p][0] + recurrent[m][p][0] + bias(w, 0, unit));                  // (1)
                    const Vec z = sigmoid(x[m][p][1] + recurrent[m][p][1] + bias(w, 1, unit));                  // (2)
                    store(shared_.z + padded_at, z);
                    store(shared_.n + padded_at, x[m][p][2] + bias(w, 2, unit) + bias(w, 3, unit));
                    store_first(shared_.reset_state + at, r * load_first(h + at, used), used);
                }
        });
    }

    void step_before(const Int8Layer& w, const float* h, float* next) const {
        for_tiles<1>(s_.B, panel_begin_, panel_end_, [&](auto mr, auto np, Index row, Index panel) {
            constexpr int MR = mr.value, NP = np.value;
            Tile<MR, NP, 1> recurrent;
            multiply<MR, NP, 1>(recurrent, w.hh, 2, own_.states, row, panel);
            for (int m = 0; m < MR; ++m)
                for (int p = 0; p < NP; ++p) {
                    const Index unit = (panel + p) * lanes, used = lanes_used(s_.H, panel + p);
                    const Index at = (row + m) * s_.H + unit, padded_at = (row + m) * padded(s_.H) + unit;
                    const Vec before = load_first(h + at, used);
                    const Vec z = load(shared_.z + padded_at);
                    const Vec n = tanh(load(shared_.n + padded_at) + recurrent[m][p][0]);                       // (3)
                    store_first(next + at, n + z * (before - n), used);                                         // (4)
                }
        });
    }

    // product[m][p][g] = slot first_slot + g of panel + p, times row + m of the batch.
    template <int MR, int NP, int G>
    static void multiply(Tile<MR, NP, G>& product, const Int8Matrix& w, int first_slot, const Int8Rows& rows, Index row,
                         Index panel) {
        const Index columns = (panel * 3 + first_slot) * lanes;
        IntTile<MR, NP, G> sums;
        multiply_bytes<MR, NP, G>(sums, w, first_slot, rows.bytes + row * padded(w.depth), panel);
        for_each(product, sums, [](Vec& to, IntVec sum) { to = __builtin_convertvector(sum, Vec); });
        if (rows.fine) {
            multiply_bytes<MR, NP, G>(sums, w, first_slot, rows.fine + row * padded(w.depth), panel);
            for_each(product, sums,
                     [](Vec& to, IntVec sum) { to += __builtin_convertvector(sum, Vec) * (1.0f / 254); });
        }
        for (int p = 0; p < NP; ++p)
            for (int g = 0; g < G; ++g) {
                const Vec scale = load(w.scale + columns + (p * 3 + g) * lanes);
                for (int m = 0; m < MR; ++m) product[m][p][g] = rounded(product[m][p][g] * (scale * rows.scale[row + m]));
            }
    }

    template <int MR, int NP, int G>
    static void multiply_bytes(IntTile<MR, NP, G>& sums, const Int8Matrix& w, int first_slot, const Byte* bytes,
                               Index panel) {
        const Index panel_size = w.panel_size(), columns = (panel * 3 + first_slot) * lanes;
        for (int p = 0; p < NP; ++p)
            for (int g = 0; g < G; ++g)
                for (int m = 0; m < MR; ++m) sums[m][p][g] = load_ints(w.start + columns + (p * 3 + g) * lanes);
        const std::int32_t* from = w.bytes + panel * panel_size + first_slot * lanes;
        for (Index k = 0; k < quads(w.depth); ++k, from += 3 * lanes) {
            IntVec v[MR];
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) {
                std::int32_t four;
                std::memcpy(&four, bytes + m * padded(w.depth) + k * quad, sizeof four);
                v[m] = four - IntVec{};
            }
#pragma GCC unroll 4
            for (int p = 0; p < NP; ++p)
#pragma GCC unroll 3
                for (int g = 0; g < G; ++g) {
                    const IntVec weights = load_ints(from + p * panel_size + g * lanes);
#pragma GCC unroll 8
                    for (int m = 0; m < MR; ++m) sums[m][p][g] = add_products(sums[m][p][g], v[m], weights);
                }
        }
    }

    template <int MR, int NP, int G, typename Body>
    static void for_each(Tile<MR, NP, G>& to, const IntTile<MR, NP, G>& from, const Body& body) {
        for (int m = 0; m < MR; ++m)
            for (int p = 0; p < NP; ++p)
                for (int g = 0; g < G; ++g) body(to[m][p][g], from[m][p][g]);
    }

    static IntVec load_ints(const std::int32_t* p) {
        IntVec v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
    Vec bias(const Int8Layer& w, Index slot, Index unit) const { return load(w.bias + slot * padded(s_.H) + unit); }

    const StreamStep& call_;
    const StreamShape& s_;
    const Shared shared_;
    const Own own_;
    const int team_;
    Barrier& barrier_;
    Index panel_begin_, panel_end_;
};

}  // namespace
}  // namespace gatewise
