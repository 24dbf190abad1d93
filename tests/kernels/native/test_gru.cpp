// Runs the kernels of every instruction set that this processor has, on random shapes, layouts and thread counts, and
// compares them with the equations in double precision. Needs neither Python nor torch, so that it can run under
// sanitizers.
//
//     test_gru [SEED] [SHAPES]     SHAPES: how many random ones, beside those that are always run
#include <thread>

#include "checks.h"
#include "definition.h"

namespace gatewise {
namespace {

// Of the largest element of an array; arrays of smaller numbers than least_largest are held to that, and sums of T * B
// terms, which may cancel out, to sqrt(T * B) times that.
struct Tolerance {
    double states, gradients, least_largest;
};
template <typename Number>
constexpr Tolerance tolerance{1e-4, 1e-4, 0.01};
template <>
constexpr Tolerance tolerance<Bfloat16>{5e-3, 2e-2, 0.05};

// ThreadSanitizer finds a race in one run, and waits for minutes where many threads share few cores.
#ifdef __SANITIZE_THREAD__
constexpr bool repeats = false;
const int thread_counts[] = {2, 4};
#else
constexpr bool repeats = true;
const int thread_counts[] = {1, 2, 3, 5};
#endif

std::string text(const GruShape& s) {
    return "T" + std::to_string(s.T) + "-B" + std::to_string(s.B) + "-I" + std::to_string(s.I) + "-H" +
           std::to_string(s.H) + "-" + text(s.reset);
}

// What goes into a call, which gradients are wanted, and what should come out. Any number of calls at once may read it.
template <typename Number>
struct Problem {
    GruShape shape;
    Array<Number> x, h0, weight_ih, weight_hh, bias_ih, bias_hh, dy, dhn;
    Layout y, dx;
    bool wants_dx, wants_dh0, wants_dweight_ih, wants_dweight_hh, wants_dbias_ih, wants_dbias_hh;
    GruResults expected;

    // `extreme`: inputs that saturate every gate, infinities among them; the gradient of weight_ih is 0 * infinity.
    Problem(const GruShape& s, Random& random, bool extreme = false)
        : shape(s), x(Layout::any(s.T, s.B, s.I, random, true)), h0(Layout::any(1, s.B, s.H, random, true)),
          weight_ih(Layout::contiguous(1, 3 * s.H, s.I)), weight_hh(Layout::contiguous(1, 3 * s.H, s.H)),
          bias_ih(Layout::contiguous(1, 3, s.H), !random.one_in(4)),
          bias_hh(Layout::contiguous(1, 3, s.H), !random.one_in(4)),
          dy(Layout::any(s.T, s.B, s.H, random, true), !random.one_in(4)),
          dhn(Layout::any(1, s.B, s.H, random, true), !random.one_in(4)), y(Layout::any(s.T, s.B, s.H, random, false)),
          dx(Layout::any(s.T, s.B, s.I, random, false)), wants_dx(!random.one_in(4)), wants_dh0(!random.one_in(4)),
          wants_dweight_ih(!random.one_in(4) && !extreme), wants_dweight_hh(!random.one_in(4)),
          wants_dbias_ih(!random.one_in(4)), wants_dbias_hh(!random.one_in(4)) {
        const auto number = [&] { return random.uniform(); };
        const auto weight = [&] { return random.uniform() * 1.5f / std::sqrt(static_cast<float>(s.H)); };
        const float extremes[] = {infinity, -infinity, 3e38f, -3e38f, 95.0f, -95.0f, 1e-40f, -0.0f};
        const auto extreme_number = [&] { return extremes[random.below(8)]; };
        if (extreme) x.set(extreme_number); else x.set(number);
        for (Array<Number>* array : {&h0, &dy, &dhn}) array->set(number);
        for (Array<Number>* array : {&weight_ih, &weight_hh, &bias_ih, &bias_hh}) array->set(weight);
        const GruInputs inputs{x.values(),       h0.values(),      weight_ih.values(), weight_hh.values(),
                               bias_ih.values(), bias_hh.values(), dy.values(),        dhn.values()};
        expected = GruDefinition(s, inputs).results();
    }
};

// Runs a problem and keeps what came out.
template <typename Number>
struct Outputs {
    const Problem<Number>& problem;
    Array<Number> y, hn, inference_y, inference_hn;  // inference: without saved
    Array<Number> kept_y, kept_hn;                    // with the weights that the call before has packed
    Array<Number> dx, dh0, dweight_ih, dweight_hh, dbias_ih, dbias_hh;

    // `scratch` fills each workspace beforehand.
    Outputs(const Problem<Number>& p, const KernelsOf<Number>& kernels, int threads, float scratch = nan)
        : problem(p), y(p.y), hn(Layout::contiguous(1, p.shape.B, p.shape.H)), inference_y(p.y),
          inference_hn(Layout::contiguous(1, p.shape.B, p.shape.H)), kept_y(p.y),
          kept_hn(Layout::contiguous(1, p.shape.B, p.shape.H)), dx(p.dx, p.wants_dx),
          dh0(Layout::contiguous(1, p.shape.B, p.shape.H), p.wants_dh0),
          dweight_ih(Layout::contiguous(1, 3 * p.shape.H, p.shape.I), p.wants_dweight_ih),
          dweight_hh(Layout::contiguous(1, 3 * p.shape.H, p.shape.H), p.wants_dweight_hh),
          dbias_ih(Layout::contiguous(1, 3, p.shape.H), p.wants_dbias_ih),
          dbias_hh(Layout::contiguous(1, 3, p.shape.H), p.wants_dbias_hh) {
        Guarded<float> saved(kernels.saved_size(p.shape));
        saved.fill(scratch);
        const GruWeightsOf<Number> weights{p.weight_ih.data(), p.weight_hh.data(), p.bias_ih.data(), p.bias_hh.data()};
        const auto x = p.x.template sequence<const Number>(), h0 = p.h0.template sequence<const Number>();
        const auto forward = [&](Array<Number>& states, Array<Number>& last, float* save, float* kept, int threads) {
            Guarded<float> workspace(kernels.forward_workspace_size(p.shape, save != nullptr, kept != nullptr, threads));
            workspace.fill(scratch);
            kernels.forward({p.shape, weights, x, h0, states.template sequence<Number>(), last.data(), save, kept},
                            workspace.data(), threads);
        };
        forward(inference_y, inference_hn, nullptr, nullptr, threads);
        forward(y, hn, saved.data(), nullptr, threads);
        Guarded<float> kept(std::max<Index>(kernels.kept_size(p.shape), 1));
        kept.fill(0.0f);
        float* const keep = kernels.kept_size(p.shape) > 0 ? kept.data() : nullptr;
        forward(kept_y, kept_hn, nullptr, keep, 1);
        forward(kept_y, kept_hn, nullptr, keep, threads);
        saved.forbid_writing();
        y.forbid_writing();
        Guarded<float> workspace(kernels.backward_workspace_size(p.shape, threads));
        workspace.fill(scratch);
        kernels.backward({p.shape, weights, x, h0, y.template sequence<const Number>(), saved.data(),
                          p.dy.template sequence<const Number>(), p.dhn.template sequence<const Number>(),
                          dx.template sequence<Number>(), dh0.data(), dweight_ih.data(), dweight_hh.data(),
                          dbias_ih.data(), dbias_hh.data()},
                         workspace.data(), threads);
    }

    // body(name, array, what it should be, tolerance, least_largest)
    template <typename Body>
    void for_each(const Body& body) const {
        const GruResults& expected = problem.expected;
        const auto [states, gradients, least] = tolerance<Number>;
        const double least_sum = least * std::sqrt(static_cast<double>(problem.shape.T * problem.shape.B));
        body("y", y, expected.y, states, least);
        body("hn", hn, expected.hn, states, least);
        body("y without saved", inference_y, expected.y, states, least);
        body("hn without saved", inference_hn, expected.hn, states, least);
        body("y with kept weights", kept_y, expected.y, states, least);
        body("hn with kept weights", kept_hn, expected.hn, states, least);
        body("dx", dx, expected.dx, gradients, least);
        body("dh0", dh0, expected.dh0, gradients, least);
        body("dweight_ih", dweight_ih, expected.dweight_ih, gradients, least_sum);
        body("dweight_hh", dweight_hh, expected.dweight_hh, gradients, least_sum);
        body("dbias_ih", dbias_ih, expected.dbias_ih, gradients, least_sum);
        body("dbias_hh", dbias_hh, expected.dbias_hh, gradients, least_sum);
    }
};

template <typename Number>
void check_right(const std::string& where, const Outputs<Number>& outputs) {
    outputs.for_each([&](const char* name, const Array<Number>& array, const Doubles& expected, double tolerance,
                         double least_largest) {
        check_close(where, name, array, expected, tolerance, least_largest);
    });
}

template <typename Number>
void check_same(const std::string& where, const Outputs<Number>& a, const Outputs<Number>& b) {
    using Numbers = Array<Number>;
    std::vector<const Numbers*> others;
    b.for_each([&](const char*, const Numbers& array, const Doubles&, double, double) { others.push_back(&array); });
    std::size_t i = 0;
    a.for_each([&](const char* name, const Numbers& array, const Doubles&, double, double) {
        if (!array.same_bits(*others[i++])) fail(where, std::string(name) + ": other bits in the second run");
    });
}

// Every thread count, each twice with other scratch memory, and teams that come out smaller than the grid of the call,
// which changes nothing.
template <typename Number>
void check(const std::string& name, const Problem<Number>& problem, const KernelsOf<Number>& kernels) {
    for (int threads : thread_counts) {
        const std::string where = name + " " + text(problem.shape) + " " + std::to_string(threads) + " threads";
        const Outputs<Number> outputs(problem, kernels, threads);
        check_right(where, outputs);
        if (repeats) check_same(where, outputs, Outputs<Number>(problem, kernels, threads, 1e30f));
        if (threads != 5) continue;
        team_limit = 2;
        check_same(where + " of which 2 come", outputs, Outputs<Number>(problem, kernels, threads));
        team_limit = 1;
        check_same(where + " of which 1 comes", outputs, Outputs<Number>(problem, kernels, threads));
        team_limit = 1000;
    }
}

// Several callers at once, each with its own workspace and outputs and all with the same inputs.
template <typename Number>
void check_concurrent_callers(const std::string& name, const Problem<Number>& problem,
                              const KernelsOf<Number>& kernels) {
    const std::string where = name + " " + text(problem.shape) + " several callers";
    const Outputs<Number> alone(problem, kernels, 2);
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i)
        callers.emplace_back([&] { check_same(where, alone, Outputs<Number>(problem, kernels, 2)); });
    for (std::thread& caller : callers) caller.join();
}

GruShape random_shape(Random& random) {
    const Index sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 24, 31, 32, 33, 47, 64, 65, 100};
    for (;;) {
        const auto size = [&](Index count) { return sizes[random.below(count)]; };
        const GruShape s{size(18), size(16), size(19), size(20), Reset::after};
        const Index work = s.T * s.B * s.H * (s.H + s.I);
        // Half of them are large enough for several threads.
        if (work < 1200000 && (random.one_in(2) || work > 70000)) return s;
    }
}

// Shapes that reach what random ones seldom do.
std::vector<GruShape> special_shapes() {
    return {
        {1, 1, 1, 1, Reset::after},
        {5, 3, 1, 1, Reset::after},
        {1, 1, 64, 260, Reset::after},   // one step, several threads
        {1, 9, 23, 140, Reset::after},
        {8, 4, 20, 140, Reset::after},   // weights packed for the forward only
        {75, 20, 3, 48, Reset::after},   // several chunks of gates, of one thread and of groups
        {150, 7, 2, 31, Reset::after},
        {260, 1, 3, 17, Reset::after},
        {2, 9, 5, 365, Reset::after},    // weights larger than the cache: all threads share the rows
        {3, 70, 2, 16, Reset::after},    // groups of more than a tile's rows
    };
}

// All shapes on one kind of number: `kernels` by name.
template <typename Number>
void test(const std::vector<std::pair<std::string, const KernelsOf<Number>*>>& all, std::vector<GruShape> shapes,
          std::uint32_t seed) {
    Random random(seed);
    for (GruShape& shape : shapes)
        for (Reset reset : {Reset::after, Reset::before}) {
            shape.reset = reset;
            const Problem<Number> problem(shape, random);
            for (const auto& [name, kernels] : all) check(name, problem, *kernels);
        }
    for (Reset reset : {Reset::after, Reset::before}) {
        const Problem<Number> extreme({9, 5, 1, 33, reset}, random, true), shared({20, 8, 12, 40, reset}, random);
        for (const auto& [name, kernels] : all) {
            check(name, extreme, *kernels);
            check_concurrent_callers(name, shared, *kernels);
        }
    }
}

int test(std::uint32_t seed, int shape_count) {
    std::printf("test_gru: seed %u, %d random shapes\n", seed, shape_count);
    std::fflush(stdout);
    std::vector<std::pair<std::string, const KernelsOf<float>*>> float32;
    std::vector<std::pair<std::string, const KernelsOf<Bfloat16>*>> bfloat16;
    std::string names;
    const Kernels* best = nullptr;
    for (const char* name : {"amx", "avx512", "avx2", "portable"}) {
        const Kernels* kernels = kernels_for(name);
        if (!kernels) continue;
        if (!best) best = kernels;
        // What serves float32 under two names is run once.
        if (kernels->float32_name == std::string(name)) float32.emplace_back(name, kernels);
        if (kernels->bfloat16) bfloat16.emplace_back(name + std::string(" bfloat16"), kernels->bfloat16);
    }
    if (!best || best != best_kernels()) fail("best_kernels", "is not the first of kernels_for");
    if (kernels_for("unknown")) fail("kernels_for", "knows \"unknown\"");
    for (const auto& kernels : float32) names += " " + kernels.first;
    for (const auto& kernels : bfloat16) names += ", " + kernels.first;

    Random random(seed);
    std::vector<GruShape> shapes = special_shapes();
    for (int i = 0; i < shape_count; ++i) shapes.push_back(random_shape(random));
    test(float32, shapes, seed);
    if (!bfloat16.empty()) test(bfloat16, shapes, seed);
    return finish(std::to_string(shapes.size()) + " shapes on" + names);
}

}  // namespace
}  // namespace gatewise

int main(int argument_count, char** arguments) {
    const long seed = argument_count > 1 ? std::atol(arguments[1]) : 1;
    const int shape_count = argument_count > 2 ? std::atoi(arguments[2]) : 12;
    return gatewise::test(static_cast<std::uint32_t>(seed), shape_count);
}
