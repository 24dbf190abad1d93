// The cells of the family: how many gates each has, what a step saves, and its pointwise part, forward and backward, on
// a vector of units. The steps bear the numbers of the equations in kernels/reference.py.
//
// A row (step, batch) of gates consists of slots, each H padded to whole vectors:
//
//                  saved                    gradients of the gates, before their activations
//     gru_after    [hn | r | z | n]         [hn | r | z | n]        hn = W_hn h + b_hn
//     gru_before   [r | z | n]              [r | z | n]
//     lstm         [i | f | g | o | c]      [i | f | g | o]             with a projection, too
//     rnn          [h]                      [h]
//     mingru       [z | n]                  [z | n]
//
// The gradients that belong to W_i x are those of the gates; those that belong to the recurrent products are the first
// ones: hn r z, where hn stands for the candidate. A cell that is Extended may have more slots: extended.h.
#pragma once

#include <type_traits>

#include "activations.h"
#include "plan.h"

namespace gatewise {
namespace {

// What a step of some units has.
struct ForwardUnits {
    float* gates;         // the gates' slots: the input's part, to which what is saved may be written
    Index slot;           // floats from one slot to the next
    Vec* products;        // of the state and the recurrent weights; the first part of two leaves here what the second needs
    const float* bias;    // of the last gate's recurrent product, where it is kept apart
    Vec h;                // the state before
    float* c;             // the second state, before and after
    bool saves;

    GATEWISE_INLINE Vec input(int gate) const { return load(gates + gate * slot); }
    GATEWISE_INLINE void save(int gate, Vec v) const { store(gates + gate * slot, v); }
};

// What the derivative of a step of some units has.
struct BackwardUnits {
    const float* gates;  // as they were saved
    Index slot;
    Vec h, c;   // the states before the step
    Vec dh;     // gradient of the state after it
    float* dc;  // gradient of the second state, after and before

    GATEWISE_INLINE Vec saved(int slot_number) const { return load(gates + slot_number * slot); }
};

struct GruAfter {
    static constexpr int gates = 3, saved = 4, gradients = 4;
    static constexpr int first_gate = 1;            // its slot, in what is saved and in the gradients
    static constexpr bool keeps_last_bias = true;   // the last gate's recurrent bias is apart from the input's
    static constexpr bool has_second_state = false;
    static constexpr bool has_second_product = false;
    static constexpr bool has_recurrent_weights = true;
    static constexpr bool has_two_parts = true;     // the step, begin() and end(), for which see TwoParts in matmul.h
    // Gates from one of these to the next are normalised together.
    static constexpr int blocks[] = {0, 2, 3};
    // The gate whose recurrent weights belong to a slot of the gradients.
    static constexpr int gate_of(int slot) { return (slot + 2) % 3; }

    template <typename Arithmetic>
    GATEWISE_INLINE static void begin(const ForwardUnits& u) {
        const Vec r = Arithmetic::sigmoid(u.input(0) + u.products[0]);  // (1)
        const Vec z = Arithmetic::sigmoid(u.input(1) + u.products[1]);  // (2)
        const Vec hn = load(u.bias) + u.products[2];
        if (u.saves) {
            u.save(-1, hn);
            u.save(0, r);
            u.save(1, z);
        }
        u.products[1] = z;
        u.products[2] = u.input(2) + r * hn;
    }
    template <typename Arithmetic>
    GATEWISE_INLINE static Vec end(const ForwardUnits& u) {
        const Vec z = u.products[1];
        const Vec n = Arithmetic::tanh(u.products[2]);                  // (3)
        if (u.saves) u.save(2, n);
        return n + z * (u.h - n);                                       // (4)
    }

    // set(slot, v): the gradients. Returns that of the state before, as far as it does not come by way of the products.
    template <typename Set>
    GATEWISE_INLINE static Vec back(const BackwardUnits& u, const Set& set) {
        const Vec hn = u.saved(0), r = u.saved(1), z = u.saved(2), n = u.saved(3);
        const Vec dn = u.dh * (1.0f - z) * (1.0f - n * n);  // (4), (3): of the candidate before its tanh
        set(0, dn * r);                                     // (3): of hn
        set(1, dn * hn * r * (1.0f - r));                   // (3), (1)
        set(2, u.dh * (u.h - n) * z * (1.0f - z));          // (4), (2)
        set(3, dn);
        return u.dh * z;                                    // (4)
    }
};

// Two products: that of the gates r and z with h, and then that of the candidate with r * h.
struct GruBefore {
    static constexpr int gates = 3, saved = 3, gradients = 3;
    static constexpr int first_gate = 0;
    static constexpr bool keeps_last_bias = false;
    static constexpr bool has_second_state = false;
    static constexpr bool has_second_product = true;
    static constexpr bool has_recurrent_weights = true;
    static constexpr bool has_two_parts = false;
    static constexpr int blocks[] = {0, 2, 3};
    static constexpr int gate_of(int slot) { return slot; }

    // Returns r * h.
    template <typename Arithmetic>
    GATEWISE_INLINE static Vec step(const ForwardUnits& u) {
        const Vec r = Arithmetic::sigmoid(u.input(0) + u.products[0]);   // (1)
        u.save(0, r);
        u.save(1, Arithmetic::sigmoid(u.input(1) + u.products[1]));      // (2)
        return r * u.h;
    }
    template <typename Arithmetic>
    GATEWISE_INLINE static Vec finish(const ForwardUnits& u) {
        const Vec z = u.input(1);
        const Vec n = Arithmetic::tanh(u.input(2) + u.products[0]);  // (3)
        u.save(2, n);
        return n + z * (u.h - n);                                    // (4)
    }

    template <typename Set>
    GATEWISE_INLINE static Vec back(const BackwardUnits& u, const Set& set) {
        const Vec z = u.saved(1), n = u.saved(2);
        set(2, u.dh * (1.0f - z) * (1.0f - n * n));  // (4), (3)
        set(1, u.dh * (u.h - n) * z * (1.0f - z));   // (4), (2)
        return u.dh * z;                             // (4)
    }
    // product: the gradient of r * h. Returns what it adds to that of h.
    template <typename Set>
    GATEWISE_INLINE static Vec finish_back(const float* saved, Vec h, Vec product, const Set& set) {
        const Vec r = load(saved);
        set(0, product * h * r * (1.0f - r));  // (3), (1)
        return product * r;                    // (3)
    }
};

struct Lstm {
    static constexpr int gates = 4, saved = 5, gradients = 4;
    static constexpr int first_gate = 0;
    static constexpr bool keeps_last_bias = false;
    static constexpr bool has_second_state = true;
    static constexpr int second_state = 4;  // its slot
    static constexpr bool has_second_product = false;
    static constexpr bool has_recurrent_weights = true;
    static constexpr bool has_two_parts = true;
    static constexpr int blocks[] = {0, 4};
    static constexpr int gate_of(int slot) { return slot; }

    template <typename Arithmetic>
    GATEWISE_INLINE static void begin(const ForwardUnits& u) {
        const Units units = units_of<Arithmetic>(u);
        store(u.c, units.c);
        if (u.saves) {
            save_gates(u, units);
            u.save(second_state, units.c);
        }
        u.products[0] = units.c;
        u.products[3] = units.o;
    }
    template <typename Arithmetic>
    GATEWISE_INLINE static Vec end(const ForwardUnits& u) {
        return u.products[3] * Arithmetic::tanh(u.products[0]);         // (6)
    }

    struct Units {
        Vec i, f, g, o, c;
    };
    template <typename Arithmetic>
    GATEWISE_INLINE static Units units_of(const ForwardUnits& u) {
        const Vec i = Arithmetic::sigmoid(u.input(0) + u.products[0]);  // (1)
        const Vec f = Arithmetic::sigmoid(u.input(1) + u.products[1]);  // (2)
        const Vec g = Arithmetic::tanh(u.input(2) + u.products[2]);     // (3)
        const Vec o = Arithmetic::sigmoid(u.input(3) + u.products[3]);  // (4)
        return {i, f, g, o, f * load(u.c) + i * g};                     // (5)
    }
    GATEWISE_INLINE static void save_gates(const ForwardUnits& u, const Units& units) {
        u.save(0, units.i);
        u.save(1, units.f);
        u.save(2, units.g);
        u.save(3, units.o);
    }

    template <typename Set>
    GATEWISE_INLINE static Vec back(const BackwardUnits& u, const Set& set) {
        const Vec dc = load(u.dc) + back_to_cell(u, tanh(u.saved(second_state)), set);
        store(u.dc, back_from_cell(u, dc, set));
        return Vec{};
    }

    // The gradient of what the tanh of (6) is taken of, whose value is t.
    template <typename Set>
    GATEWISE_INLINE static Vec back_to_cell(const BackwardUnits& u, Vec t, const Set& set) {
        const Vec o = u.saved(3);
        set(3, u.dh * t * o * (1.0f - o));    // (6), (4)
        return u.dh * o * (1.0f - t * t);     // (6)
    }
    // dc: that of the new cell. Returns that of the old one.
    template <typename Set>
    GATEWISE_INLINE static Vec back_from_cell(const BackwardUnits& u, Vec dc, const Set& set) {
        const Vec i = u.saved(0), f = u.saved(1), g = u.saved(2);
        set(0, dc * g * i * (1.0f - i));      // (5), (1)
        set(1, dc * u.c * f * (1.0f - f));    // (5), (2)
        set(2, dc * i * (1.0f - g * g));      // (5), (3)
        return dc * f;                        // (5)
    }
};

// (6) has another product, that of W_hr and what step() gives: the state, which has units of its own number.
struct LstmProjected : Lstm {
    // What the projection is of, from what was saved.
    GATEWISE_INLINE static Vec shown(const BackwardUnits& u) { return u.saved(3) * tanh(u.saved(second_state)); }
};
template <typename Cell>
constexpr bool projects = std::is_same_v<Cell, LstmProjected>;

// Whether a step ends with a product of all that the cell computed before.
template <typename Cell>
constexpr bool has_factor = Cell::has_second_product || projects<Cell>;

template <bool Tanh>
struct Rnn {
    static constexpr int gates = 1, saved = 1, gradients = 1;
    static constexpr int first_gate = 0;
    static constexpr bool keeps_last_bias = false;
    static constexpr bool has_second_state = false;
    static constexpr bool has_second_product = false;
    static constexpr bool has_recurrent_weights = true;
    static constexpr bool has_two_parts = false;
    static constexpr int blocks[] = {0, 1};
    static constexpr int gate_of(int slot) { return slot; }

    template <typename Arithmetic>
    GATEWISE_INLINE static Vec step(const ForwardUnits& u) {
        const Vec a = u.input(0) + u.products[0];
        const Vec h = Tanh ? Arithmetic::tanh(a) : a < 0.0f ? Vec{} : a;  // (1); NaN stays NaN
        if (u.saves) u.save(0, h);
        return h;
    }

    template <typename Set>
    GATEWISE_INLINE static Vec back(const BackwardUnits& u, const Set& set) {
        const Vec h = u.saved(0);
        set(0, Tanh ? u.dh * (1.0f - h * h) : h > 0.0f ? u.dh : Vec{});  // (1)
        return Vec{};
    }
};

// No product needs the state: units do not need each other, and no one waits for anyone within a step.
template <bool Positive>
struct MinGru {
    static constexpr int gates = 2, saved = 2, gradients = 2;
    static constexpr int first_gate = 0;
    static constexpr bool keeps_last_bias = false;
    static constexpr bool has_second_state = false;
    static constexpr bool has_second_product = false;
    static constexpr bool has_recurrent_weights = false;
    static constexpr bool has_two_parts = false;
    static constexpr int gate_of(int slot) { return slot; }

    template <typename Arithmetic>
    GATEWISE_INLINE static Vec step(const ForwardUnits& u) {
        const Vec z = Arithmetic::sigmoid(u.input(0));     // (1)
        const Vec n = candidate<Arithmetic>(u.input(1));   // (2)
        if (u.saves) {
            u.save(0, z);
            u.save(1, n);
        }
        return (1.0f - z) * n + z * u.h;                   // (3); n may be so large that u.h - n has no number
    }
    template <typename Arithmetic>
    GATEWISE_INLINE static Vec candidate(Vec a) {
        if constexpr (Positive) return a >= 0.0f ? a + 0.5f : Arithmetic::sigmoid(a);
        else return a;
    }

    template <typename Set>
    GATEWISE_INLINE static Vec back(const BackwardUnits& u, const Set& set) {
        const Vec z = u.saved(0), n = u.saved(1);
        const Vec dn = u.dh * (1.0f - z);                  // (3)
        set(0, u.dh * (u.h - n) * z * (1.0f - z));         // (3), (1)
        if constexpr (Positive) set(1, n >= 0.5f ? dn : dn * n * (1.0f - n));  // (2): n is 0.5 where a is 0
        else set(1, dn);                                   // (2)
        return u.dh * z;                                   // (3)
    }
};

// By the names of the enumeration Cell.
using cell_gru_after = GruAfter;
using cell_gru_before = GruBefore;
using cell_lstm = Lstm;
using cell_rnn_tanh = Rnn<true>;
using cell_rnn_relu = Rnn<false>;
using cell_mingru_linear = MinGru<false>;
using cell_mingru_positive = MinGru<true>;
using cell_lstm_projected = LstmProjected;

}  // namespace
}  // namespace gatewise
