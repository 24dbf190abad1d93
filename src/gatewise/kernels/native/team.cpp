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

// The least of some tries that last about a tenth of a millisecond; 0 where not even one had both threads running.
double measure_barrier() {
    constexpr int rounds = 16, tries = 8;
    constexpr double most = 1000;
    Barrier barrier;
    std::atomic<bool> goes_on{true};
    double least = most;
    const auto body = [&](int thread, int team) {
        if (team < 2) return;
        const std::int64_t start = nanoseconds();
        for (int i = 0; i < tries && goes_on.load(std::memory_order_relaxed); ++i) {
            barrier.wait(team);
            const std::int64_t begin = nanoseconds();
            for (int round = 0; round < rounds; ++round) barrier.wait(team);
            const std::int64_t end = nanoseconds();
            if (thread == 0) {
                least = std::min(least, static_cast<double>(end - begin) / rounds);
                goes_on.store(end - start < millisecond / 10, std::memory_order_relaxed);
            }
            barrier.wait(team);  // both read the same
        }
    };
    const auto call_body = [](const void* context, int thread, int team) {
        (*static_cast<decltype(&body)>(context))(thread, team);
    };
    run_team(2, call_body, &body);
    return least < most ? least : 0;
}

// A thread that was asleep comes to a core of its own within some milliseconds in which it is used.
constexpr std::int64_t waking = 20 * millisecond;
std::atomic<double> barrier_cost{0};
std::atomic<std::int64_t> measured_until{0}, wakes_until{0};

}  // namespace

double barrier_nanoseconds(std::int64_t now) {
    if (now < measured_until.load(std::memory_order_relaxed)) return barrier_cost.load(std::memory_order_relaxed);
    const double cost = measure_barrier();
    if (is_alone) return cost;
    const std::int64_t wakes = wakes_until.load(std::memory_order_relaxed);
    if (cost == 0 && wakes == 0) wakes_until.store(now + waking, std::memory_order_relaxed);
    if (cost == 0 && (wakes == 0 || now < wakes)) return 0;
    wakes_until.store(0, std::memory_order_relaxed);
    barrier_cost.store(cost, std::memory_order_relaxed);
    measured_until.store(now + (cost > 0 ? 50 : 1000) * millisecond, std::memory_order_relaxed);
    return cost;
}

}  // namespace gatewise
