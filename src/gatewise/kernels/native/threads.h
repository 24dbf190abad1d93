// Threads for one call: a team that runs a function, and a barrier for those who share rows.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "recurrence.h"

namespace gatewise {

// body(context, thread, team) on a team of up to `threads` threads, the caller's among them; returns when all are done.
// The team can be smaller: inside another parallel region, or where the system has no more threads. See team.cpp.
void run_team(int threads, void (*body)(const void* context, int thread, int team), const void* context);

// Gives the core to whoever waits for one.
void yield_core();

// A clock.
std::int64_t nanoseconds();

// Several threads are faster only while nothing else wants the cores: a thread that waits for one which does not run
// waits for milliseconds (T=256, B=1, H=256: training took 30 times as long beside a busy process on each core, on one
// thread up to 4 times). So after two calls in a row that lost more than half of their time, calls are made by one thread,
// for a while.
bool better_alone(std::int64_t now);
void report_loss(std::int64_t begin, std::int64_t end, std::int64_t lost);

// Whether nobody asked this for so long that the other threads may be asleep. One that wakes up often does so on the
// caller's core, and the two take turns for 10 ms (T=256, B=1, H=128, every 0.1 s: 12 ms with it, 1.1 ms alone).
bool others_may_sleep(std::int64_t now);

// What it costs two threads to wait for each other: about 40 ns on cores that share a cache, 200 on a mesh of them.
// Measured anew every 50 ms, for a virtual machine's cores move. 0: not yet known, for a thread has just been woken up and
// shares the caller's core; less: that did not change in time, or no thread can be had.
double barrier_nanoseconds(std::int64_t now);

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
            if (spins == most_spins) return wait_long(round);
#ifdef __x86_64__
            _mm_pause();
#endif
        }
    }

    // Nanoseconds that were waited for threads that did not run.
    std::int64_t lost() const { return lost_.load(std::memory_order_relaxed); }

  private:
    static constexpr int most_spins = 1000;

    void wait_long(int round) {
        const std::int64_t begin = nanoseconds();
        while (round_.load(std::memory_order_acquire) == round) yield_core();
        lost_.fetch_add(nanoseconds() - begin, std::memory_order_relaxed);
    }

    std::atomic<int> arrived_{0};
    alignas(64) std::atomic<int> round_{0};
    std::atomic<std::int64_t> lost_{0};
};

// A part of a call, that one thread does: rows [row_begin, row_end) of the batch, panels [panel_begin, panel_end) of
// hidden units, panels [state_begin, state_end) of the state's units. Threads with the same rows are a group of `members`; they wait for each other at `barrier`.
struct Share {
    int share, shares;  // of the whole call
    int group, groups, member, members;
    Index row_begin, row_end, panel_begin, panel_end, state_begin, state_end;
    Barrier* barrier;

    Index rows() const { return row_end - row_begin; }
    void wait() const { barrier->wait(members); }
};

// Part `part` of `parts` of `count` things: [begin, end).
inline std::pair<Index, Index> part_of(Index count, Index part, Index parts) {
    return {count * part / parts, count * (part + 1) / parts};
}

// How many groups share the batch, and how many members of each share the hidden units. The results of a call depend on
// its grid, but not on how many threads come to work on it.
struct Grid {
    int groups, members;
    int chunks;  // how many members' gates a chunk of steps holds
    double work;  // multiply-adds of a group from one wait of its members to the next

    int shares() const { return groups * members; }

    // The grid whose shares do not wait for each other within a step, so that any number of threads can do them.
    Grid without_members() const { return {groups, 1, chunks, work}; }
};

}  // namespace
}  // namespace gatewise
