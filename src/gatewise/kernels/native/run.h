// Runs a sweep on a team of threads, and makes the table of kernels of one arithmetic.
#pragma once

#include <new>

#include "backward.h"
#include "forward.h"

namespace gatewise {
namespace {

template <typename Space, typename... Rest>
Index space_size(const Shape& shape, Grid grid, Rest... rest) {
    const auto size = [&](Grid grid) {
        Arena counter(nullptr);
        Space(counter, shape, grid, rest...);
        return counter.used();
    };
    return std::max(size(grid), size(grid.without_members()));
}

// Does all shares of the grid on up to `threads` threads. Returns the nanoseconds that they lost in waiting for each
// other, or -1 if too few came for members that wait for each other in each step, and nothing was done.
template <typename Sweep, typename Session, typename Space, typename Call>
std::int64_t run_on(Grid grid, int threads, const Call& call, const Space& space) {
    for (int i = 0; i < grid.groups; ++i) new (space.barriers + i) Barrier;
    Barrier everyone;
    std::atomic<bool> done{false};
    const auto body = [&](int thread, int team) {
        if (grid.members > 1 && team < grid.shares()) return;
        [[maybe_unused]] const Session session;
        const auto for_shares = [&](auto part) {
            for (int i = thread; i < grid.shares(); i += team) {
                const Share share = share_of(call.shape, grid, i, space.barriers);
                part(Sweep(call, space, share));
            }
        };
        for_shares([](Sweep&& sweep) { sweep.prepare(); });
        everyone.wait(team);
        for_shares([](Sweep&& sweep) { sweep.sweep(); });
        everyone.wait(team);
        for_shares([](Sweep&& sweep) { sweep.finish(); });
        if (thread == 0) done.store(true, std::memory_order_relaxed);
    };
    const auto call_body = [](const void* context, int thread, int team) {
        (*static_cast<decltype(&body)>(context))(thread, team);
    };
    run_team(threads, call_body, &body);
    if (!done.load(std::memory_order_relaxed)) return -1;
    std::int64_t lost = everyone.lost();
    for (int i = 0; i < grid.groups; ++i) lost += space.barriers[i].lost();
    return lost;
}

// The whole call: on as many threads as the grid has shares, or on one, where that is better.
template <typename Sweep, typename Session, typename Space, typename Call, typename... Rest>
void run(Grid grid, const Call& call, float* workspace, Rest... rest) {
    const auto run_grid = [&](Grid grid, int threads) {
        Arena arena(workspace);
        const Space space(arena, call.shape, grid, rest...);
        return run_on<Sweep, Session>(grid, threads, call, space);
    };
    if (grid.shares() > 1) {
        const std::int64_t begin = nanoseconds();
        if (!better_alone(begin)) {
            if (!waiting_pays(grid, call.shape.T, begin)) grid = grid.without_members();
            const std::int64_t lost = run_grid(grid, grid.shares());
            if (lost >= 0) return report_loss(begin, nanoseconds(), lost);
        }
    }
    run_grid(grid.without_members(), 1);
}

// The kernels of one cell in one arithmetic.
template <typename Cell, typename Arithmetic>
struct KernelsIn {
    using Number = typename Arithmetic::Number;
    using Session = typename Arithmetic::Session;
    using Forward = ForwardSpace<Cell, Arithmetic>;
    using Backward = BackwardSpace<Cell, Arithmetic>;

    static constexpr int waits = (has_factor<Cell> ? 2 : 1) + (is_extended<Cell> ? 2 : 0);

    static Grid forward_grid(const Shape& s, int threads) {
        return grid_for<Cell, Arithmetic>(s, threads, packs_forward<Arithmetic>(s), waits);
    }
    static Grid backward_grid(const Shape& s, int threads) {
        return grid_for<Cell, Arithmetic>(s, threads, packs_backward<Cell, Arithmetic>(s), waits);
    }
    static Index kept_size(const Shape& s) {
        Arena counter(nullptr);
        if (packs_forward<Arithmetic>(s)) PackedWeights<Cell, Arithmetic>(counter, s, true);
        return counter.used();
    }
    static Index saved_size(const Shape& s) { return s.row_steps() * saved_row<Cell>(s).width; }

    static Index forward_workspace_size(const Shape& s, bool saves, bool keeps, int threads) {
        return space_size<Forward>(s, forward_grid(s, threads), saves, keeps, static_cast<float*>(nullptr));
    }
    static void forward(const ForwardOf<Number>& call, float* workspace, int threads) {
        run<ForwardSweep<Cell, Arithmetic>, Session, Forward>(forward_grid(call.shape, threads), call, workspace,
                                                              call.saved != nullptr, call.kept != nullptr, call.kept);
    }

    static Index backward_workspace_size(const Shape& s, Index every, int threads) {
        return space_size<Backward>(s, backward_grid(s, threads), every);
    }
    static void backward(const BackwardOf<Number>& call, float* workspace, int threads) {
        run<BackwardSweep<Cell, Arithmetic>, Session, Backward>(backward_grid(call.shape, threads), call, workspace,
                                                                call.every);
    }

    static Index slot(Index H) { return padded(H); }

    static constexpr KernelsOf<Number> all{
        Cell::saved, saved_size, slot, kept_size, forward_workspace_size, backward_workspace_size, forward, backward};
};

}  // namespace
}  // namespace gatewise
