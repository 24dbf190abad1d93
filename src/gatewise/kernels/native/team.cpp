// Threads for a call. OpenMP's where the compiler has it, because torch's are the same ones (a fork and join through
// them costs 1.1 us, through a pool of our own 7); else new threads for each call.
#include <algorithm>
#include <chrono>
#include <thread>

#ifdef _OPENMP
#include <omp.h>
#else
#include <system_error>
#include <vector>
#endif

#include "alone.h"
#include "threads.h"

namespace gatewise {
namespace {

thread_local bool is_alone = false;

}  // namespace

Alone::Alone() : before_(is_alone) { is_alone = true; }
Alone::~Alone() { is_alone = before_; }

void run_team(int threads, void (*body)(const void*, int, int), const void* context) {
    if (threads == 1 || is_alone) return body(context, 0, 1);
#ifdef _OPENMP
#pragma omp parallel num_threads(threads)
    body(context, omp_get_thread_num(), omp_get_num_threads());
#else
    std::vector<std::thread> others;
    std::atomic<int> team{0};  // 0 until it is known how many threads could be had
    try {
        for (int i = 1; i < threads; ++i)
            others.emplace_back([&, i] {
                while (team.load(std::memory_order_acquire) == 0) std::this_thread::yield();
                body(context, i, team.load(std::memory_order_acquire));
            });
    } catch (const std::system_error&) {  // no more threads: a smaller team
    }
    const int size = 1 + static_cast<int>(others.size());
    team.store(size, std::memory_order_release);
    body(context, 0, size);
    for (std::thread& other : others) other.join();
#endif
}

void yield_core() { std::this_thread::yield(); }

std::int64_t nanoseconds() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

namespace {

// After two such calls in a row (one alone may have woken a sleeping thread up, which takes 50 to 300 us), calls are made
// alone for this many times what was lost, so that trying again costs little.
constexpr std::int64_t rest = 4;
constexpr std::int64_t little = 200'000;
std::atomic<std::int64_t> alone_until{0}, lost_before{0};

}  // namespace

bool better_alone(std::int64_t now) { return now < alone_until.load(std::memory_order_relaxed); }

void report_loss(std::int64_t begin, std::int64_t end, std::int64_t lost) {
    const bool much = lost > little && 2 * lost > end - begin;
    const std::int64_t before = lost_before.exchange(much ? lost : 0, std::memory_order_relaxed);
    if (!much || before == 0) return;
    lost_before.store(0, std::memory_order_relaxed);
    alone_until.store(end + rest * (before + lost), std::memory_order_relaxed);
}

namespace {

constexpr std::int64_t millisecond = 1'000'000;

// The least of some tries; 0 where the second thread was not running.
double measure_barrier() {
    constexpr int rounds = 16, tries = 8;
    constexpr double most = 1000;
    Barrier barrier;
    double least = most;
    std::atomic<bool> runs{false};
    const auto time = [&](int count, int team) {
        barrier.wait(team);
        const std::int64_t begin = nanoseconds();
        for (int round = 0; round < count; ++round) barrier.wait(team);
        return static_cast<double>(nanoseconds() - begin) / count;
    };
    const auto body = [&](int thread, int team) {
        if (team < 2) return;
        const double once = time(1, team);
        if (thread == 0) runs.store(once < 5 * most, std::memory_order_relaxed);
        barrier.wait(team);
        for (int i = 0; i < tries && runs.load(std::memory_order_relaxed); ++i) {
            const double cost = time(rounds, team);
            if (thread == 0) least = std::min(least, cost);
        }
    };
    const auto call_body = [](const void* context, int thread, int team) {
        (*static_cast<decltype(&body)>(context))(thread, team);
    };
    run_team(2, call_body, &body);
    return least < most ? least : 0;
}

// How long threads count as awake, and what was measured holds; in what time one that was asleep comes to a core of its
// own, if it is used; and how long that is not tried again where it does not.
constexpr std::int64_t awake = 50 * millisecond, waking = 20 * millisecond, pause = 500 * millisecond;
std::atomic<double> barrier_cost{0};
std::atomic<std::int64_t> asked{0}, valid_until{0}, waking_since{0};

}  // namespace

bool others_may_sleep(std::int64_t now) { return now - asked.exchange(now, std::memory_order_relaxed) >= awake; }

double barrier_nanoseconds(std::int64_t now) {
    if (now < valid_until.load(std::memory_order_relaxed)) return barrier_cost.load(std::memory_order_relaxed);
    if (is_alone) return -1;
    const std::int64_t since = waking_since.load(std::memory_order_relaxed);
    const bool begins = now - since > waking + pause;
    if (!begins && now - since > waking) return -1;
    const double cost = measure_barrier();
    if (cost > 0) {
        barrier_cost.store(cost, std::memory_order_relaxed);
        valid_until.store(now + awake, std::memory_order_relaxed);
        waking_since.store(now - waking - pause, std::memory_order_relaxed);
    } else if (begins) {
        waking_since.store(now, std::memory_order_relaxed);
    }
    return cost;
}

}  // namespace gatewise
