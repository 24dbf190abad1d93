// The GRU over a whole sequence, forward and backward, in float32: what the kernels take and give.
//
// Notation: T steps, B rows of the batch, I inputs, H hidden units. All sizes are at least 1, all strides count floats,
// and the last axis of every array is contiguous. A time stride may be negative: then the pointer is that of the last
// step, and the sequence runs backwards. Nothing here knows Python or torch, allocates, or keeps state.
#pragma once

#include <cstddef>

namespace gatewise {

using Index = std::ptrdiff_t;

// Where the reset gate acts: after or before the recurrent product of the candidate.
enum class Reset { after, before };

struct GruShape {
    Index T, B, I, H;
    Reset reset;
};

// A sequence (T, B, last): element (t, b, i) is data[t * step + b * row + i].
template <typename Float>
struct Sequence {
    Float* data;  // may be null where a function says so
    Index step, row;

    Float* at(Index t, Index b) const { return data + t * step + b * row; }
};

// Weights as torch keeps them, contiguous: the rows of the gates r, z, n, one below the other.
struct GruWeights {
    const float* ih;       // (3H, I)
    const float* hh;       // (3H, H)
    const float* bias_ih;  // (3H,) or null
    const float* bias_hh;  // (3H,) or null
};

struct GruForward {
    GruShape shape;
    GruWeights weights;
    Sequence<const float> x;  // (T, B, I)
    Sequence<const float> h0; // (B, H); its step is not used
    Sequence<float> y;        // (T, B, H): every state; must not overlap any input
    float* hn;                // (B, H) contiguous: the last state
    float* saved;             // saved_size() floats: what the backward needs; null: not saved
};

struct GruBackward {
    GruShape shape;
    GruWeights weights;
    Sequence<const float> x;   // (T, B, I)
    Sequence<const float> h0;  // (B, H); its step is not used
    Sequence<const float> y;   // (T, B, H), as the forward left it
    const float* saved;        // as the forward left it; only read, so that a second backward is right, too
    Sequence<const float> dy;  // (T, B, H), or null for zeros
    Sequence<const float> dhn; // (B, H), or null for zeros; its step is not used
    // Gradients, contiguous, written and not added to; null where one is not wanted.
    Sequence<float> dx;        // (T, B, I)
    float* dh0;                // (B, H)
    float* dweight_ih;         // (3H, I)
    float* dweight_hh;         // (3H, H)
    float* dbias_ih;           // (3H,)
    float* dbias_hh;           // (3H,)
};

// One instruction set's implementation. `workspace` is the caller's: workspace_size floats, aligned to 64 bytes, with
// any content, for one call at a time. `threads` is the most that a call may use.
struct Kernels {
    const char* name;
    Index (*saved_size)(const GruShape&);
    Index (*forward_workspace_size)(const GruShape&, bool saves, int threads);
    Index (*backward_workspace_size)(const GruShape&, int threads);
    void (*forward)(const GruForward&, float* workspace, int threads);
    void (*backward)(const GruBackward&, float* workspace, int threads);
};

// The kernels for an instruction set by name, or null if this build or this processor lacks it.
const Kernels* kernels_for(const char* name);

// The best that this processor can run; never null.
const Kernels* best_kernels();

}  // namespace gatewise
