// Chooses among the kernels of this build by what the processor can run.
#include <cstring>

#ifdef GATEWISE_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "recurrence.h"

namespace gatewise {

#define GATEWISE_EXTERN(isa, cell) extern const KernelsOf<float> kernels_##isa##_##cell, extended_##isa##_##cell;
#define GATEWISE_EXTERN_PORTABLE(cell) GATEWISE_EXTERN(portable, cell)
GATEWISE_CELLS(GATEWISE_EXTERN_PORTABLE)
#ifdef __x86_64__
#define GATEWISE_EXTERN_AVX2(cell) GATEWISE_EXTERN(avx2, cell)
#define GATEWISE_EXTERN_AVX512(cell) GATEWISE_EXTERN(avx512, cell)
GATEWISE_CELLS(GATEWISE_EXTERN_AVX2)
GATEWISE_CELLS(GATEWISE_EXTERN_AVX512)
#endif
#ifdef GATEWISE_AVX512_BF16
extern const KernelsOf<Bfloat16> bfloat16_avx512_bf16_gru_after, bfloat16_avx512_bf16_gru_before;
#endif
#ifdef GATEWISE_AMX
extern const KernelsOf<Bfloat16> bfloat16_amx_gru_after, bfloat16_amx_gru_before;
#endif

namespace {

// The float32 kernels of an instruction set: plain, and extended.
#define GATEWISE_PORTABLE(cell) &kernels_portable_##cell,
#define GATEWISE_PORTABLE_EXTENDED(cell) &extended_portable_##cell,
#define GATEWISE_OF_PORTABLE {GATEWISE_CELLS(GATEWISE_PORTABLE)}, {GATEWISE_CELLS(GATEWISE_PORTABLE_EXTENDED)}
constexpr Kernels kernels_portable{"portable", "portable", GATEWISE_OF_PORTABLE, {}};
#ifdef __x86_64__
#define GATEWISE_AVX2(cell) &kernels_avx2_##cell,
#define GATEWISE_AVX2_EXTENDED(cell) &extended_avx2_##cell,
#define GATEWISE_AVX512(cell) &kernels_avx512_##cell,
#define GATEWISE_AVX512_EXTENDED(cell) &extended_avx512_##cell,
#define GATEWISE_OF_AVX2 {GATEWISE_CELLS(GATEWISE_AVX2)}, {GATEWISE_CELLS(GATEWISE_AVX2_EXTENDED)}
#define GATEWISE_OF_AVX512 {GATEWISE_CELLS(GATEWISE_AVX512)}, {GATEWISE_CELLS(GATEWISE_AVX512_EXTENDED)}
constexpr Kernels kernels_avx2{"avx2", "avx2", GATEWISE_OF_AVX2, {}};
constexpr Kernels kernels_avx512{"avx512", "avx512", GATEWISE_OF_AVX512, {}};
#endif

struct Choice {
    const Kernels* kernels;
    bool runs_here;
};

#ifdef GATEWISE_AVX512_BF16
constexpr Kernels kernels_avx512_bf16{"avx512",
                                      "avx512",
                                      GATEWISE_OF_AVX512,
                                      {&bfloat16_avx512_bf16_gru_after, &bfloat16_avx512_bf16_gru_before}};
#endif

#ifdef GATEWISE_AMX
// The processor has AMX, and the system lets this process use the tiles' registers.
bool amx_runs_here() {
    constexpr unsigned amx_bf16 = 1u << 22, amx_tile = 1u << 24;
    constexpr long request_permission = 0x1023, tile_data = 18;
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & amx_bf16) || !(d & amx_tile)) return false;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

// AMX for bfloat16, AVX-512 for the rest.
constexpr Kernels kernels_amx{
    "amx", "avx512", GATEWISE_OF_AVX512, {&bfloat16_amx_gru_after, &bfloat16_amx_gru_before}};
#endif

}  // namespace

const Kernels* kernels_for(const char* name) {
#ifdef __x86_64__
    __builtin_cpu_init();
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    [[maybe_unused]] const bool avx512_bf16 = avx512 && __builtin_cpu_supports("avx512bf16");
    const Choice choices[] = {
#ifdef GATEWISE_AMX
        {&kernels_amx, avx512_bf16 && amx_runs_here()},
#endif
#ifdef GATEWISE_AVX512_BF16
        {&kernels_avx512_bf16, avx512_bf16},
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
