// Runs the streams' kernels of every instruction set that this processor has, on random stacks of layers, and compares
// a step with the equations in double precision.
//
//     test_stream [SEED] [SHAPES]     SHAPES: how many random ones, beside those that are always run
#include <deque>
#include <thread>

#include "checks.h"
#include "definition.h"
#include "stream.h"

namespace gatewise {
namespace {

constexpr double float32_tolerance = 1e-4, int8_tolerance = 5e-2;  // of states up to 1

std::string text(const StreamShape& s) {
    const char* const reset = s.reset == Reset::after ? "after" : "before";
    return "L" + std::to_string(s.L) + "-B" + std::to_string(s.B) + "-I" + std::to_string(s.I) + "-H" +
           std::to_string(s.H) + "-" + reset;
}

// The arrays of one step, and what should come out. Only read, by any number of calls at once.
struct Problem {
    StreamShape shape;
    std::deque<Array<float>> arrays;  // of each layer weight_ih, weight_hh, bias_ih, bias_hh
    std::vector<WeightsOf<float>> weights;
    Array<float> x, state;
    Doubles expected;

    Problem(const StreamShape& s, Random& random)
        : shape(s), x(Layout::contiguous(1, s.B, s.I)), state(Layout::contiguous(s.L, s.B, s.H)) {
        const bool biased = !random.one_in(4);
        for (Index layer = 0; layer < s.L; ++layer) {
            const Index first = static_cast<Index>(arrays.size());
            arrays.emplace_back(Layout::contiguous(1, 3 * s.H, s.inputs(layer)));
            arrays.emplace_back(Layout::contiguous(1, 3 * s.H, s.H));
            arrays.emplace_back(Layout::contiguous(1, 3, s.H), biased);
            arrays.emplace_back(Layout::contiguous(1, 3, s.H), biased);
            const auto weight = [&] { return random.uniform() / std::sqrt(static_cast<float>(s.H)); };
            for (Index i = first; i < first + 4; ++i) arrays[i].set(weight);
            weights.push_back(
                {arrays[first].data(), arrays[first + 1].data(), arrays[first + 2].data(), arrays[first + 3].data()});
        }
        x.set([&] { return random.uniform(); });
        state.set([&] { return random.uniform(); });
        expect();
    }

  private:
    void expect() {
        const Doubles states = state.values();
        Doubles input = x.values();
        for (Index layer = 0; layer < shape.L; ++layer) {
            const std::size_t size = static_cast<std::size_t>(shape.B * shape.H);
            const double* h = states.data() + layer * shape.B * shape.H;
            const auto values = [&](Index i) { return arrays[4 * layer + i].values(); };
            const Doubles zeros(size);
            const Inputs inputs{input,     Doubles(h, h + size), zeros, values(0), values(1),
                                values(2), values(3),            zeros, zeros,     zeros};
            const Cell cell = shape.reset == Reset::after ? Cell::gru_after : Cell::gru_before;
            input = Definition(cell, {1, shape.B, shape.inputs(layer), shape.H}, inputs).results().hn;
            expected.insert(expected.end(), input.begin(), input.end());
        }
    }
};

// Takes a step and keeps the state after it.
struct Step {
    Array<float> next;

    Step(const Problem& p, const StreamKernels& kernels, const Guarded<float>* packed, int threads, float scratch = nan)
        : next(Layout::contiguous(p.shape.L, p.shape.B, p.shape.H)) {
        const bool int8 = packed != nullptr;
        Guarded<float> workspace(kernels.workspace_size(p.shape, int8, threads));
        workspace.fill(scratch);
        const float* bytes = int8 ? packed->data() : nullptr;
        kernels.step({p.shape, p.weights.data(), bytes, p.x.data(), p.state.data(), next.data()}, workspace.data(),
                     threads);
    }
};

// Each thread count gives the same bits, and so do several callers at once.
void check_steps(const Problem& problem, const StreamKernels& kernels, const Guarded<float>* packed) {
    const bool int8 = packed != nullptr;
    const std::string where = kernels.name + std::string(int8 ? " int8 " : " float32 ") + text(problem.shape);
    const Step alone(problem, kernels, packed, 1);
    check_close(where, "state", alone.next, problem.expected, int8 ? int8_tolerance : float32_tolerance, 1.0);
    const auto check_same = [&](const Step& step, const std::string& how) {
        if (!alone.next.same_bits(step.next)) fail(where, "other bits " + how);
    };
    const int most = kernels.most_threads(problem.shape, int8);
    check_same(Step(problem, kernels, packed, 1, 1e30f), "in the second run");
    for (int threads : {2, 3, 5})
        if (threads <= most) check_same(Step(problem, kernels, packed, threads), "on " + std::to_string(threads));
    team_limit = 2;
    if (most >= 5) check_same(Step(problem, kernels, packed, 5), "on 5 threads of which 2 come");
    team_limit = 1000;
    std::vector<std::thread> callers;
    for (int i = 0; i < 2; ++i)
        callers.emplace_back([&] { check_same(Step(problem, kernels, packed, std::min(2, most)), "beside others"); });
    for (std::thread& caller : callers) caller.join();
}

// The stripes' sums tell one float that changed, in whichever stripe it is; and only there.
void check_sums(const Problem& problem, const StreamKernels& kernels, Random& random) {
    const std::string where = kernels.name + (" " + text(problem.shape));
    const StreamShape& s = problem.shape;
    Array<float> changed(Layout::contiguous(1, 3 * s.H, s.I));
    const Doubles values = problem.arrays[0].values();
    const std::size_t place = static_cast<std::size_t>(random.below(static_cast<Index>(values.size())));
    std::size_t i = 0;
    changed.set([&] {
        const float value = static_cast<float>(values[i]);
        return i++ == place ? std::nextafter(value, infinity) : value;
    });
    std::vector<WeightsOf<float>> weights = problem.weights;
    weights[0].ih = changed.data();
    for (Index stripes : {1, 3, 31}) {
        int different = 0;
        for (Index stripe = 0; stripe < stripes; ++stripe)
            different += kernels.stripe_sum(s, problem.weights.data(), stripe, stripes) !=
                         kernels.stripe_sum(s, weights.data(), stripe, stripes);
        if (different != 1)
            fail(where, std::to_string(different) + " stripes of " + std::to_string(stripes) + " changed");
    }
}

void check(const Problem& problem, const StreamKernels& kernels, Random& random) {
    check_steps(problem, kernels, nullptr);
    Guarded<float> packed(kernels.packed_size(problem.shape));
    packed.fill(nan);
    kernels.pack(problem.shape, problem.weights.data(), packed.data());
    packed.forbid_writing();
    check_steps(problem, kernels, &packed);
    check_sums(problem, kernels, random);
}

int test(std::uint32_t seed, int shape_count) {
    std::printf("test_stream: seed %u, %d random shapes\n", seed, shape_count);
    std::fflush(stdout);
    std::vector<const StreamKernels*> all;
    std::string names;
    for (const char* name : {"avx512vnni", "avx512bw", "avxvnni", "avx2fma", "portable"})
        if (const StreamKernels* kernels = stream_kernels_for(name)) {
            all.push_back(kernels);
            names += std::string(" ") + name;
        }
    if (all.empty()) fail("stream_kernels_for", "has not even the portable kernels");
    if (stream_kernels_for("unknown")) fail("stream_kernels_for", "knows \"unknown\"");

    Random random(seed);
    std::vector<StreamShape> shapes{
        {1, 1, 1, 1, Reset::after},
        {2, 1, 64, 256, Reset::after},
        {3, 9, 100, 200, Reset::after},  // several threads, in bytes too
        {1, 4, 7, 520, Reset::after},
    };
    const Index sizes[] = {1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 48, 65, 100};
    for (int i = 0; i < shape_count; ++i)
        shapes.push_back({1 + random.below(3), 1 + random.below(9), sizes[random.below(14)], sizes[random.below(14)],
                          Reset::after});
    for (StreamShape& shape : shapes)
        for (Reset reset : {Reset::after, Reset::before}) {
            shape.reset = reset;
            const Problem problem(shape, random);
            for (const StreamKernels* kernels : all) check(problem, *kernels, random);
        }
    return finish(std::to_string(shapes.size()) + " shapes on" + names);
}

}  // namespace
}  // namespace gatewise

int main(int argument_count, char** arguments) {
    const long seed = argument_count > 1 ? std::atol(arguments[1]) : 1;
    const int shape_count = argument_count > 2 ? std::atoi(arguments[2]) : 12;
    return gatewise::test(static_cast<std::uint32_t>(seed), shape_count);
}
