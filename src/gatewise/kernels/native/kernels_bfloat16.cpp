// The GRU's kernels for bfloat16. Compiled once for each way to multiply, with GATEWISE_ISA naming it.
#ifdef __AMX_BF16__
#include "amx.h"
#else
#include "avx512_bf16.h"
#endif
#include "run.h"

#define GATEWISE_JOIN_(a, b, c) a##b##c
#define GATEWISE_JOIN(a, b, c) GATEWISE_JOIN_(a, b, c)
#define GATEWISE_KERNELS(cell) GATEWISE_JOIN(bfloat16_, GATEWISE_ISA, cell)

namespace gatewise {

extern const KernelsOf<Bfloat16> GATEWISE_KERNELS(_gru_after) = KernelsIn<GruAfter, TiledBfloat16<Products>>::all;
extern const KernelsOf<Bfloat16> GATEWISE_KERNELS(_gru_before) = KernelsIn<GruBefore, TiledBfloat16<Products>>::all;

}  // namespace gatewise
