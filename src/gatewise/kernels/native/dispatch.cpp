// Chooses among the kernels of this build by what the processor can run.
#include <cstring>

#ifdef GATEWISE_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "gru.h"

namespace gatewise {

extern const Kernels kernels_portable;
#ifdef __x86_64__
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
#endif
#ifdef GATEWISE_AMX
extern const KernelsOf<Bfloat16> bfloat16_amx;
#endif

namespace {

struct Choice {
    const Kernels* kernels;
    bool runs_here;
};

#ifdef GATEWISE_AMX
// The processor has AMX and AVX-512 for bfloat16, and the system lets this process use the tiles' registers.
bool amx_runs_here() {
    constexpr unsigned avx512_bf16 = 1u << 5, amx_bf16 = 1u << 22, amx_tile = 1u << 24;
    constexpr long request_permission = 0x1023, tile_data = 18;
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & avx512_bf16)) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & amx_bf16) || !(d & amx_tile)) return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

// AMX for bfloat16, AVX-512 for the rest.
const Kernels& kernels_amx() {
    static const Kernels kernels = [] {
        Kernels both = kernels_avx512;
        both.name = "amx";
        both.bfloat16 = &bfloat16_amx;
        return both;
    }();
    return kernels;
}
#endif

}  // namespace

const Kernels* kernels_for(const char* name) {
#ifdef __x86_64__
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    const Choice choices[] = {
#ifdef GATEWISE_AMX
        {&kernels_amx(), avx512 && amx_runs_here()},
#endif
        {&kernels_avx512, avx512},
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
