// One instruction set's kernels. Compiled once for each, with GATEWISE_ISA naming it.
#include <new>
#include <tuple>

#include "backward.h"
#include "forward.h"

namespace gatewise {
namespace {

constexpr Grid alone{1, 1};

template <typename Space, typename... Rest>
Index space_size(const GruShape& shape, Grid grid, Rest... rest) {
    Arena counter(nullptr);
    Space(counter, shape, grid, rest...);
    return counter.used();
}

// Runs the sweep on every share of the grid; false if the team came out smaller than the grid, and nothing was done.
template <typename Sweep, typename Space, typename Call, typename... Rest>
bool run_on(Grid grid, const Call& call, float* workspace, Rest... rest) {
    Arena arena(workspace);
    const Space space(arena, call.shape, grid, rest...);
    for (int i = 0; i < 1 + grid.groups; ++i) new (space.barriers + i) Barrier;
    std::atomic<bool> done{false};
    const auto body = [&](int thread, int team) {
        if (team != grid.groups * grid.members) return;
        const Share share = share_of(call.shape, grid, thread, space.barriers);
        Sweep(call, space, share).run();
        if (thread == 0) done.store(true, std::memory_order_relaxed);
    };
    const auto call_body = [](const void* context, int thread, int team) {
        (*static_cast<decltype(&body)>(context))(thread, team);
    };
    run_team(grid.groups * grid.members, call_body, &body);
    return done.load(std::memory_order_relaxed);
}

// Where the team is smaller than was asked for, one thread does all.
template <typename Sweep, typename Space, typename Call, typename... Rest>
void run(const Call& call, float* workspace, int threads, Rest... rest) {
    if (!run_on<Sweep, Space>(grid_for(call.shape, threads), call, workspace, rest...))
        run_on<Sweep, Space>(alone, call, workspace, rest...);
}

Index saved_size(const GruShape& s) { return s.T * s.B * saved_row(s).width; }

Index forward_workspace_size(const GruShape& s, bool saves, int threads) {
    return std::max(space_size<ForwardSpace>(s, grid_for(s, threads), saves), space_size<ForwardSpace>(s, alone, saves));
}

Index backward_workspace_size(const GruShape& s, int threads) {
    return std::max(space_size<BackwardSpace>(s, grid_for(s, threads)), space_size<BackwardSpace>(s, alone));
}

void forward(const GruForward& call, float* workspace, int threads) {
    run<ForwardSweep, ForwardSpace>(call, workspace, threads, call.saved != nullptr);
}

void backward(const GruBackward& call, float* workspace, int threads) {
    run<BackwardSweep, BackwardSpace>(call, workspace, threads);
}

}  // namespace

#define GATEWISE_JOIN_(a, b) a##b
#define GATEWISE_JOIN(a, b) GATEWISE_JOIN_(a, b)
#define GATEWISE_TEXT_(a) #a
#define GATEWISE_TEXT(a) GATEWISE_TEXT_(a)

extern const Kernels GATEWISE_JOIN(kernels_, GATEWISE_ISA) = {
    GATEWISE_TEXT(GATEWISE_ISA), saved_size, forward_workspace_size, backward_workspace_size, forward, backward,
};

}  // namespace gatewise
