// One instruction set's kernels for streams. Compiled once for each, with GATEWISE_STREAM naming it and GATEWISE_ISA
// the family.
#include "stream_float32.h"
#include "stream_int8.h"

namespace gatewise {
namespace {

// Multiply-adds that are worth a thread: about 4 us of work where the weights lie in the second cache, to which a fork
// and join add 1 us.
constexpr double thread_work_float32 = 120e3;
constexpr double thread_work_int8 = 480e3;

int most_threads(const StreamShape& s, bool int8) {
    double work = 0;
    for (Index layer = 0; layer < s.L; ++layer)
        work += 3.0 * static_cast<double>(s.B) * static_cast<double>(s.H) * static_cast<double>(s.H + s.inputs(layer));
    const double worth = work / (int8 ? thread_work_int8 : thread_work_float32);
    return static_cast<int>(std::clamp(worth, 1.0, static_cast<double>(panels(s.H))));
}

Index packed_size(const StreamShape& s) {
    Arena counter(nullptr);
    for (Index layer = 0; layer < s.L; ++layer) Int8Layer(counter, s, layer);
    return counter.used();
}

void pack(const StreamShape& s, const WeightsOf<float>* weights, float* packed) {
    Arena arena(packed);
    for (Index layer = 0; layer < s.L; ++layer) {
        const Int8Layer to(arena, s, layer);
        const WeightsOf<float>& from = weights[layer];
        to.ih.pack(from.ih, s.H);
        to.hh.pack(from.hh, s.H);
        std::fill_n(to.bias, 4 * padded(s.H), 0.0f);
        if (!from.bias_ih) continue;
        for (Index unit = 0; unit < s.H; ++unit) {
            to.bias[unit] = from.bias_ih[unit] + from.bias_hh[unit];
            to.bias[padded(s.H) + unit] = from.bias_ih[s.H + unit] + from.bias_hh[s.H + unit];
            to.bias[2 * padded(s.H) + unit] = from.bias_ih[2 * s.H + unit];
            to.bias[3 * padded(s.H) + unit] = from.bias_hh[2 * s.H + unit];
        }
    }
}

Index workspace_size(const StreamShape& s, bool int8, int threads) {
    return int8 ? Int8Step::workspace_size(s, threads) : Float32Step::workspace_size(s);
}

template <typename Step>
void run(const StreamStep& call, float* workspace, int threads) {
    Barrier barrier;
    const auto body = [&](int thread, int team) { Step(call, workspace, thread, team, barrier).run(); };
    const auto call_body = [](const void* context, int thread, int team) {
        (*static_cast<decltype(&body)>(context))(thread, team);
    };
    run_team(threads, call_body, &body);
}

void step(const StreamStep& call, float* workspace, int threads) {
    if (call.packed) {
        run<Int8Step>(call, workspace, threads);
    } else {
        run<Float32Step>(call, workspace, threads);
    }
}

constexpr Index line = 16;  // floats

// One array's part of a stripe's sum. Turned left by 5 bits before each addition, a sum tells the order, too.
void add_stripe(IntVec (&sums)[line / lanes], const float* array, Index size, Index stripe, Index stripes) {
    typedef std::uint32_t Bits __attribute__((vector_size(sizeof(IntVec))));
    const auto add = [&](Index i, Vec floats) {
        const Bits sum = reinterpret_cast<Bits>(sums[i]);
        sums[i] = reinterpret_cast<IntVec>((sum << 5 | sum >> 27) + reinterpret_cast<Bits>(floats));
    };
    Index at = stripe * line;
    for (; at + line <= size; at += stripes * line)
        for (Index i = 0; i < line / lanes; ++i) add(i, load(array + at + i * lanes));
    for (Index i = 0; at + i * lanes < size; ++i)
        add(i, load_first(array + at + i * lanes, std::min<Index>(lanes, size - at - i * lanes)));
}

std::uint64_t stripe_sum(const StreamShape& s, const WeightsOf<float>* weights, Index stripe, Index stripes) {
    IntVec sums[line / lanes] = {};
    for (Index layer = 0; layer < s.L; ++layer) {
        const WeightsOf<float>& w = weights[layer];
        add_stripe(sums, w.ih, 3 * s.H * s.inputs(layer), stripe, stripes);
        add_stripe(sums, w.hh, 3 * s.H * s.H, stripe, stripes);
        if (w.bias_ih) add_stripe(sums, w.bias_ih, 3 * s.H, stripe, stripes);
        if (w.bias_hh) add_stripe(sums, w.bias_hh, 3 * s.H, stripe, stripes);
    }
    std::uint64_t total = 0;
    for (const IntVec& sum : sums)
        for (int lane = 0; lane < lanes; ++lane)
            total = total * 0x9e3779b97f4a7c15u + static_cast<std::uint32_t>(sum[lane]);
    return total;
}

}  // namespace

#define GATEWISE_JOIN_(a, b) a##b
#define GATEWISE_JOIN(a, b) GATEWISE_JOIN_(a, b)
#define GATEWISE_TEXT_(a) #a
#define GATEWISE_TEXT(a) GATEWISE_TEXT_(a)

extern const StreamKernels GATEWISE_JOIN(stream_kernels_, GATEWISE_STREAM) = {
    GATEWISE_TEXT(GATEWISE_STREAM), GATEWISE_TEXT(GATEWISE_ISA), packed_size, pack, most_threads, workspace_size, step,
    stripe_sum,
};

}  // namespace gatewise
