// What the test programs share: the count of failures, comparisons, and the teams of threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>

#include "arrays.h"
#include "threads.h"

namespace gatewise {

inline std::atomic<int> failures{0}, calls{0}, team_calls{0}, largest_team{0};
inline thread_local int team_limit = 1000;

// team.cpp's run_team, which the Makefile renames: the test stands between it and the kernels, to hand out a team that
// is smaller than was asked for.
void system_team(int threads, void (*body)(const void*, int, int), const void* context);

void run_team(int threads, void (*body)(const void*, int, int), const void* context) {
    ++calls;
    if (threads > 1) ++team_calls;
    if (threads > largest_team) largest_team = threads;
    system_team(std::min(threads, team_limit), body, context);
}

// The same of what waiting costs: threads share the units in three calls out of four, however small, also where a
// sanitizer makes them slow.
double system_barrier_nanoseconds(std::int64_t now);
bool system_others_may_sleep(std::int64_t now);

bool others_may_sleep(std::int64_t) { return false; }

double barrier_nanoseconds(std::int64_t) {
    static std::atomic<unsigned> asked{0};
    return ++asked % 4 == 0 ? 0 : 1e-3;
}

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();

inline void fail(const std::string& where, const std::string& what) {
    ++failures;
    std::printf("FAILED %s: %s\n", where.c_str(), what.c_str());
}

// Every element within `tolerance` of the largest, or of `least_largest`; and nothing written beside the elements, or
// where NaN is expected.
template <typename Number>
void check_close(const std::string& where, const std::string& name, const Array<Number>& array,
                 const std::vector<double>& expected, double tolerance, double least_largest) {
    if (!array.untouched_beside(expected)) fail(where, name + ": wrote beside its rows");
    if (!array.present()) return;
    const std::vector<double> got = array.values();
    double largest = least_largest;
    for (double value : expected) largest = std::max(largest, std::abs(value));
    for (std::size_t i = 0; i < got.size(); ++i)
        if (!std::isnan(expected[i]) && !(std::abs(got[i] - expected[i]) <= tolerance * largest))
            return fail(where, name + "[" + std::to_string(i) + "] is " + std::to_string(got[i]) +
                                   ", not " + std::to_string(expected[i]) + "; largest " + std::to_string(largest));
}

// The program's result, after a line that says what was done.
inline int finish(const std::string& done) {
    std::printf("%s; %d calls, %d on several threads, at most %d; %d failures\n", done.c_str(), calls.load(),
                team_calls.load(), largest_team.load(), failures.load());
    return failures == 0 ? 0 : 1;
}

}  // namespace gatewise
