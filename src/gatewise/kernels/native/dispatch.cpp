// Chooses among the kernels of this build by what the processor can run.
#include <cstring>

#include "gru.h"

namespace gatewise {

extern const Kernels kernels_portable;
#ifdef __x86_64__
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif

namespace {

struct Choice {
    const Kernels* kernels;
    bool runs_here;
};

}  // namespace

const Kernels* kernels_for(const char* name) {
#ifdef __x86_64__
    __builtin_cpu_init();
    const Choice choices[] = {
        {&kernels_avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                              __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl")},
        {&kernels_avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
        {&kernels_portable, true},
    };
#else
    const Choice choices[] = {{&kernels_portable, true}};
#endif
    for (const Choice& choice : choices)
        if (choice.runs_here && (name == nullptr || std::strcmp(name, choice.kernels->name) == 0))
            return choice.kernels;
    return nullptr;
}

const Kernels* best_kernels() { return kernels_for(nullptr); }

}  // namespace gatewise
