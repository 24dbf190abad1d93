// One step of a stack of GRU layers, for streams: what the kernels take and give.
//
// Notation as in recurrence.h, and L layers, of which the first has I inputs and the others have H. All arrays are contiguous.
// In float32 the weights are read where the layer keeps them: nothing is packed that could become stale. With int8
// weights the step reads what pack() made of them.
#pragma once

#include <cstdint>

#include "recurrence.h"

namespace gatewise {

struct StreamShape {
    Index L, B, I, H;
    Reset reset;

    Index inputs(Index layer) const { return layer == 0 ? I : H; }
};

struct StreamStep {
    StreamShape shape;
    const WeightsOf<float>* weights;  // of L layers
    const float* packed;        // the int8 weights as pack() left them; null: float32
    const float* x;             // (B, I)
    const float* state;         // (L, B, H): before the step
    float* next;                // (L, B, H): after it; must not overlap the state
};

// One instruction set's implementation. `packed` and `workspace` are the caller's: packed_size and workspace_size
// floats, aligned to 64 bytes; the workspace with any content, for one call at a time. `threads` is the most that a
// call may use, up to most_threads. It changes nothing in the results, not a bit.
struct StreamKernels {
    const char* name;
    const char* family;  // the name of the Kernels that these belong to
    Index (*packed_size)(const StreamShape&);
    void (*pack)(const StreamShape&, const WeightsOf<float>* weights, float* packed);
    int (*most_threads)(const StreamShape&, bool int8);
    Index (*workspace_size)(const StreamShape&, bool int8, int threads);
    void (*step)(const StreamStep&, float* workspace, int threads);

    // The weights lie in stripes: stripe i of n is every n-th line of 64 bytes of each array, from line i on. The sum
    // of a stripe is another one as soon as one of its floats is, and, but for a rare chance, if several are.
    std::uint64_t (*stripe_sum)(const StreamShape&, const WeightsOf<float>* weights, Index stripe, Index stripes);
};

// The kernels by their name, or the best of a family; null if this build or this processor lacks them.
const StreamKernels* stream_kernels_for(const char* name);

}  // namespace gatewise
