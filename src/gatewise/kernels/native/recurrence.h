// A recurrent layer over a whole sequence, forward and backward, in float32 or bfloat16: what the kernels take and give.
//
// Notation: T steps, B rows of the batch, I inputs, H hidden units, G gates. All sizes are at least 1, all strides count
// numbers, and the last axis of every array is contiguous. Nothing here knows Python or torch, allocates, or keeps
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

// Where the reset gate of a GRU acts: after or before the recurrent product of the candidate.
enum class Reset { after, before };

// The family; cells.h says what each computes. The builds read the names here, to compile each by itself.
#define GATEWISE_CELLS(each)                                                  \
    each(gru_after) each(gru_before) each(lstm) each(rnn_tanh) each(rnn_relu) \
    each(mingru_linear) each(mingru_positive) each(lstm_projected)

enum class Cell {
#define GATEWISE_CELL_NAME(name) name,
    GATEWISE_CELLS(GATEWISE_CELL_NAME)
#undef GATEWISE_CELL_NAME
};
#define GATEWISE_ONE_CELL(name) +1
constexpr int cell_count = 0 GATEWISE_CELLS(GATEWISE_ONE_CELL);
#undef GATEWISE_ONE_CELL

// A sequence (T, B, last): element (t, b, i) is data[t * step + b * row + i].
template <typename Number>
struct Sequence {
    Number* data;  // may be null where a function says so
    Index step, row;

    Number* at(Index t, Index b) const { return data + t * step + b * row; }
};

// Rows of different lengths, sorted by falling length: those that take step t of the sweep are the first active[t].
struct Rows {
    const Index* order;    // (B,): where each row is in the batch
    const Index* lengths;  // (B,): steps of each row, 0 to T
    const Index* active;   // (T,)
    const Index* offset;   // (T,): the sum of active before t
    bool packed;           // sequences are (sum of lengths, last), step by step: their step and row are the same
    bool reverse;          // each row is read from its last step to its first
    // (T, B), true where a new sequence begins in a row: the state is the first one again before that step (in reverse:
    // before the one that precedes it). Data may be null: never.
    Sequence<const bool> resets;
};

struct Shape {
    Index T, B, I, H;
    const Rows* rows = nullptr;  // null: every row takes all steps, in the order of time
    bool normalised = false;     // the products are normalised, see Regularisation
    Index R = 0;                 // units of the state, of a cell with a projection, at most H; 0: H

    Index state() const { return R > 0 ? R : H; }

    // Rows that take step t, those that take a step before t, and how many of all take any.
    Index active(Index t) const { return rows ? rows->active[t] : B; }
    Index offset(Index t) const { return rows ? rows->offset[t] : t * B; }
    Index row_steps() const { return offset(T - 1) + active(T - 1); }

    // What row b of the sweep has in step t of the sweep, and in an array (B, last).
    template <typename Number>
    Number* at(const Sequence<Number>& sequence, Index t, Index b) const {
        if (!rows) return sequence.at(t, b);
        const Index time = rows->reverse ? rows->lengths[b] - 1 - t : t;
        return rows->packed ? sequence.at(rows->offset[time], b) : sequence.at(time, rows->order[b]);
    }
    Index place(Index b) const { return rows ? rows->order[b] : b; }
    Index length(Index b) const { return rows ? rows->lengths[b] : T; }

    bool has_resets() const { return rows && rows->resets.data; }
    // Whether row b has its first state again before step t > 0.
    bool resets(Index t, Index b) const { return *at(rows->resets, rows->reverse ? t - 1 : t, b); }
};

// Weights as torch keeps them, contiguous: the rows of the gates, one below the other, in the order of cells.h.
template <typename Number>
struct WeightsOf {
    const Number* ih;       // (GH, I)
    const Number* hh;       // (GH, H), with a projection (GH, R); null of a cell without recurrent weights, which has no
                            // bias_hh either
    const Number* bias_ih;  // (GH,) or null
    const Number* bias_hh;  // (GH,) or null
    const Number* hr = nullptr;  // (R, H), of a cell with a projection
};

// What regularises a layer: kernels/regularisation.py defines it. What is null or 0 regularises nothing. It serves the
// kernels that are `extended`, in float32.
struct Regularisation {
    Sequence<const float> dropout;  // (B, H): m; its step is not used
    // k, of h and of a second state: a mask (T, B, H), or where its data is null the same number for all.
    Sequence<const bool> zoneout_h, zoneout_c;
    double kept_h, kept_c;
    // If the shape is normalised, gains (GH,), and of a cell with a second state gain and shift (H,); the latter may be
    // null.
    const float *norm_ih, *norm_hh, *norm_c, *norm_c_bias;
};

// Gradients of the gains and the shift, as above; null where one is not wanted.
struct RegularisationGradients {
    float *norm_ih, *norm_hh, *norm_c, *norm_c_bias;
};

// Without Rows a time stride may be negative: then the pointer is that of the last step, and the sequence runs backwards.
// With a projection h0, y, hn and their gradients have R units in the place of H.
template <typename Number>
struct ForwardOf {
    Shape shape;
    WeightsOf<Number> weights;
    Sequence<const Number> x;   // (T, B, I)
    Sequence<const Number> h0;  // (B, H); its step is not used
    Sequence<const Number> c0;  // (B, H), of a cell with a second state
    Sequence<Number> y;         // (T, B, H): every state; must not overlap any input; not written where a row has ended
    Number* hn;                 // (B, H) contiguous: the last state of each row
    Number* cn;                 // (B, H) contiguous, of a cell with a second state
    float* saved;               // saved_size() floats: what the backward needs; null: not saved
    // Instead of it: the second states of every so many steps, (T / every, B, slot), whose rows are a slot apart. The
    // backward computes the rest again.
    Sequence<float> checkpoints = {};
    Index every = 0;            // steps from one checkpoint to the next; 0: none
    Number* discarded = nullptr;  // (B, H): where the states go, rather than to y, which has them already
    // kept_size() floats, aligned to 64 bytes, where the packed weights are kept from one call to the next of these
    // sizes, zeroed before the first; or null. Weights that have changed since are noticed, and packed again.
    float* kept = nullptr;
    const Regularisation* regularisation = nullptr;  // of the kernels that are extended
};

template <typename Number>
struct BackwardOf {
    Shape shape;
    WeightsOf<Number> weights;
    Sequence<const Number> x;   // (T, B, I)
    Sequence<const Number> h0;  // (B, H); its step is not used
    Sequence<const Number> c0;  // (B, H), of a cell with a second state
    Sequence<const Number> y;   // (T, B, H), as the forward left it
    const float* saved;         // as the forward left it; only read, so that a second backward is right, too; or null
    Sequence<const float> checkpoints;  // likewise; then the biases are needed, too
    Index every;                        // 0: saved is there
    Sequence<const Number> dy;  // (T, B, H), or null for zeros
    Sequence<const Number> dhn; // (B, H), or null for zeros; its step is not used
    Sequence<const Number> dcn; // (B, H), or null for zeros
    // Gradients, contiguous, written and not added to; null where one is not wanted.
    Sequence<Number> dx;        // (T, B, I); not written where a row has ended
    Number* dh0;                // (B, H)
    Number* dc0;                // (B, H), of a cell with a second state
    Number* dweight_ih;         // (GH, I)
    Number* dweight_hh;         // (GH, H); null of a cell without recurrent weights
    Number* dbias_ih;           // (GH,)
    Number* dbias_hh;           // (GH,)
    const Regularisation* regularisation = nullptr;  // of the kernels that are extended
    RegularisationGradients dregularisation = {};
    Number* dweight_hr = nullptr;  // (R, H), of a cell with a projection; as the gradients above
};

// One cell in one instruction set's implementation. `workspace` is the caller's: workspace_size floats, aligned to 64
// bytes, with any content, for one call at a time. `threads` is the most that a call may use.
template <typename Number>
struct KernelsOf {
    Index slots;  // of a row that is saved; each is H padded to whole vectors, see cells.h
    Index (*saved_size)(const Shape&);
    Index (*slot)(Index H);  // floats of a slot
    Index (*kept_size)(const Shape&);
    Index (*forward_workspace_size)(const Shape&, bool saves, bool keeps, int threads);
    Index (*backward_workspace_size)(const Shape&, Index every, int threads);  // every: 0 with saved
    void (*forward)(const ForwardOf<Number>&, float* workspace, int threads);
    void (*backward)(const BackwardOf<Number>&, float* workspace, int threads);
};

// The kernels for float32, and those for bfloat16; null where the caller has to widen bfloat16 to float32. In bfloat16
// the state and all sums are float32 within, what is saved is what the float32 kernels save, and there are neither Rows
// nor checkpoints.
struct Kernels {
    const char* name;
    const char* float32_name;  // of the instruction set that serves float32
    const KernelsOf<float>* float32[cell_count];
    const KernelsOf<float>* extended[cell_count];  // with what regularises; of a cell without recurrent weights, float32's
    const KernelsOf<Bfloat16>* bfloat16[cell_count];
};

// The kernels for an instruction set by name, or null if this build or this processor lacks it.
const Kernels* kernels_for(const char* name);

// The best that this processor can run; never null.
const Kernels* best_kernels();

}  // namespace gatewise
