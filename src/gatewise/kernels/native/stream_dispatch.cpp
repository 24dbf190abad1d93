// Chooses among the streams' kernels of this build by what the processor can run.
#include <cstring>

#include "stream.h"

namespace gatewise {

extern const StreamKernels stream_kernels_portable;
#ifdef __x86_64__
extern const StreamKernels stream_kernels_avx2fma;
extern const StreamKernels stream_kernels_avx512bw;
extern const StreamKernels stream_kernels_avx512vnni;
#ifdef GATEWISE_AVXVNNI
extern const StreamKernels stream_kernels_avxvnni;
#endif
#endif

namespace {

struct Choice {
    const StreamKernels* kernels;
    bool runs_here;
};

}  // namespace

const StreamKernels* stream_kernels_for(const char* name) {
#ifdef __x86_64__
    const bool avx2 = kernels_for("avx2") != nullptr, avx512 = kernels_for("avx512") != nullptr;
    const Choice choices[] = {
        {&stream_kernels_avx512vnni, avx512 && __builtin_cpu_supports("avx512vnni")},
        {&stream_kernels_avx512bw, avx512},
#ifdef GATEWISE_AVXVNNI
        {&stream_kernels_avxvnni, avx2 && __builtin_cpu_supports("avxvnni")},
#endif
        {&stream_kernels_avx2fma, avx2},
        {&stream_kernels_portable, true},
    };
#else
    const Choice choices[] = {{&stream_kernels_portable, true}};
#endif
    for (const Choice& choice : choices)
        if (choice.runs_here &&
            (std::strcmp(name, choice.kernels->name) == 0 || std::strcmp(name, choice.kernels->family) == 0))
            return choice.kernels;
    return nullptr;
}

}  // namespace gatewise
