// Threads for one call: a team that runs a function, and a barrier for those who share rows.
#pragma once

#include <atomic>
#include <utility>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "gru.h"

namespace gatewise {

// body(context, thread, team) on a team of up to `threads` threads, the caller's among them; returns when all are done.
// The team can be smaller: inside another parallel region, or where the system has no more threads. See team.cpp.
void run_team(int threads, void (*body)(const void* context, int thread, int team), const void* context);

// Gives the core to whoever waits for one.
void yield_core();

namespace {

// Threads wait for each other. Spins for about as long as a step lasts, then gives its core away: a barrier that only
// spins collapses when other work has the cores (1.2 ms became 1 s).
class alignas(64) Barrier {
  public:
    void wait(int members) {
        if (members == 1) return;
        const int round = round_.load(std::memory_order_relaxed);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
            arrived_.store(0, std::memory_order_relaxed);
            round_.store(round + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
            if (spins < 1000) {
#ifdef __x86_64__
                _mm_pause();
#endif
            } else {
                yield_core();
            }
        }
    }

  private:
    std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> round_{0};
};

// The part of a call that one thread does: rows [row_begin, row_end) of the batch, panels [panel_begin, panel_end) of
// hidden units. Threads with the same rows are a group of `members`; they wait for each other at `barrier`.
struct Share {
    int thread, threads;  // of the whole call
    int group, groups, member, members;
    Index row_begin, row_end, panel_begin, panel_end;
    Barrier* barrier;
    Barrier* everyone;

    Index rows() const { return row_end - row_begin; }
    void wait() const { barrier->wait(members); }
    void wait_for_all() const { everyone->wait(threads); }
};

// Part `part` of `parts` of `count` things: [begin, end).
inline std::pair<Index, Index> part_of(Index count, Index part, Index parts) {
    return {count * part / parts, count * (part + 1) / parts};
}

// How many groups share the batch, and how many members of each share the hidden units.
struct Grid {
    int groups, members;
};

}  // namespace
}  // namespace gatewise
