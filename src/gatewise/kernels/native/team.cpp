// Threads for a call. OpenMP's where the compiler has it, because torch's are the same ones (a fork and join through
// them costs 1.1 us, through a pool of our own 7); else new threads for each call.
#include <thread>

#ifdef _OPENMP
#include <omp.h>
#else
#include <system_error>
#include <vector>
#endif

#include "threads.h"

namespace gatewise {

void run_team(int threads, void (*body)(const void*, int, int), const void* context) {
    if (threads == 1) return body(context, 0, 1);
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

}  // namespace gatewise
