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

}  // namespace gatewise
