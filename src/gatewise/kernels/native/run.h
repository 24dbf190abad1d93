// Runs a sweep on a team of threads, and makes the table of kernels of one arithmetic.
#pragma once

#include <new>

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
void run(Grid grid, const Call& call, float* workspace, Rest... rest) {
    if (!run_on<Sweep, Space>(grid, call, workspace, rest...))
        run_on<Sweep, Space>(alone, call, workspace, rest...);
}

// The kernels of one arithmetic.
template <typename Arithmetic>
struct KernelsIn {
    using Number = typename Arithmetic::Number;
    using Forward = ForwardSpace<Arithmetic>;
    using Backward = BackwardSpace<Arithmetic>;

    static Grid forward_grid(const GruShape& s, int threads) {
        return grid_for<Arithmetic>(s, threads, Arithmetic::unpacked_forward_rows);
    }
    static Grid backward_grid(const GruShape& s, int threads) {
        return grid_for<Arithmetic>(s, threads, Arithmetic::unpacked_backward_rows);
    }
    static Index kept_size(const GruShape& s) {
        Arena counter(nullptr);
        if (packs_weights<Arithmetic>(s)) PackedWeights<Arithmetic>(counter, s, true);
        return counter.used();
    }
    static Index saved_size(const GruShape& s) { return s.T * s.B * saved_row(s).width; }

    static Index forward_workspace_size(const GruShape& s, bool saves, bool keeps, int threads) {
        float* const nowhere = nullptr;
        return std::max(space_size<Forward>(s, forward_grid(s, threads), saves, keeps, nowhere),
                        space_size<Forward>(s, alone, saves, keeps, nowhere));
    }
    static void forward(const GruForwardOf<Number>& call, float* workspace, int threads) {
        run<ForwardSweep<Arithmetic>, Forward>(forward_grid(call.shape, threads), call, workspace,
                                               call.saved != nullptr, call.kept != nullptr, call.kept);
    }

    static Index backward_workspace_size(const GruShape& s, int threads) {
        return std::max(space_size<Backward>(s, backward_grid(s, threads)), space_size<Backward>(s, alone));
    }
    static void backward(const GruBackwardOf<Number>& call, float* workspace, int threads) {
        run<BackwardSweep<Arithmetic>, Backward>(backward_grid(call.shape, threads), call, workspace);
    }
};

}  // namespace
}  // namespace gatewise
