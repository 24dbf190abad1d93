// The GRU over a whole sequence, forward and backward, in float32 or bfloat16: what the kernels take and give.
//
// Notation: T steps, B rows of the batch, I inputs, H hidden units. All sizes are at least 1, all strides count
// numbers, and the last axis of every array is contiguous. A time stride may be negative: then the pointer is that of
// the last step, and the sequence runs backwards. Nothing here knows Python or torch, allocates, or keeps
// state, but for when several threads were last a loss (threads.h).
#pragma once

#include <cstddef>
#include <cstdint>

namespace gatewise {

using Index = std::ptrdiff_t;

// The upper half of a float.
struct Bfloat16 {
    std::uint16_t bits;
};

// Where the reset gate acts: after or before the recurrent product of the candidate.
enum class Reset { after, before };

struct GruShape {
    Index T, B, I, H;
    Reset reset;
};

// A sequence (T, B, last): element (t, b, i) is data[t * step + b * row + i].
template <typename Number>
struct Sequence {
    Number* data;  // may be null where a function says so
    Index step, row;

    Number* at(Index t, Index b) const { return data + t * step + b * row; }
};

// Weights as torch keeps them, contiguous: the rows of the gates r, z, n, one below the other.
template <typename Number>
struct GruWeightsOf {
    const Number* ih;       // (3H, I)
    const Number* hh;       // (3H, H)
    const Number* bias_ih;  // (3H,) or null
    const Number* bias_hh;  // (3H,) or null
};

template <typename Number>
struct GruForwardOf {
    GruShape shape;
    GruWeightsOf<Number> weights;
    Sequence<const Number> x;   // (T, B, I)
    Sequence<const Number> h0;  // (B, H); its step is not used
    Sequence<Number> y;         // (T, B, H): every state; must not overlap any input
    Number* hn;                 // (B, H) contiguous: the last state
    float* saved;               // saved_size() floats: what the backward needs; null: not saved
    // kept_size() floats, aligned to 64 bytes, where the packed weights are kept from one call to the next of this
    // shape, zeroed before the first; or null. Weights that have changed since are noticed, and packed again.
    float* kept = nullptr;
};

template <typename Number>
struct GruBackwardOf {
    GruShape shape;
    GruWeightsOf<Number> weights;
    Sequence<const Number> x;   // (T, B, I)
    Sequence<const Number> h0;  // (B, H); its step is not used
    Sequence<const Number> y;   // (T, B, H), as the forward left it
    const float* saved;         // as the forward left it; only read, so that a second backward is right, too
    Sequence<const Number> dy;  // (T, B, H), or null for zeros
    Sequence<const Number> dhn; // (B, H), or null for zeros; its step is not used
    // Gradients, contiguous, written and not added to; null where one is not wanted.
    Sequence<Number> dx;        // (T, B, I)
    Number* dh0;                // (B, H)
    Number* dweight_ih;         // (3H, I)
    Number* dweight_hh;         // (3H, H)
    Number* dbias_ih;           // (3H,)
    Number* dbias_hh;           // (3H,)
};

using GruWeights = GruWeightsOf<float>;
using GruForward = GruForwardOf<float>;
using GruBackward = GruBackwardOf<float>;

// One instruction set's implementation. `workspace` is the caller's: workspace_size floats, aligned to 64 bytes, with
// any content, for one call at a time. `threads` is the most that a call may use.
template <typename Number>
struct KernelsOf {
    Index (*saved_size)(const GruShape&);
    Index (*kept_size)(const GruShape&);
    Index (*forward_workspace_size)(const GruShape&, bool saves, bool keeps, int threads);
    Index (*backward_workspace_size)(const GruShape&, int threads);
    void (*forward)(const GruForwardOf<Number>&, float* workspace, int threads);
    void (*backward)(const GruBackwardOf<Number>&, float* workspace, int threads);
};

// The kernels for float32, and those for bfloat16; null where the caller has to widen bfloat16 to float32. In bfloat16
// the state and all sums are float32 within, and what is saved is what the float32 kernels save.
struct Kernels : KernelsOf<float> {
    const char* name;
    const char* float32_name;  // of the instruction set that serves float32
    const KernelsOf<Bfloat16>* bfloat16;
};

// The kernels for an instruction set by name, or null if this build or this processor lacks it.
const Kernels* kernels_for(const char* name);

// The best that this processor can run; never null.
const Kernels* best_kernels();

}  // namespace gatewise
