// The GRU's kernels for bfloat16 by AMX's tiles.
#include "amx.h"
#include "run.h"

namespace gatewise {

extern const KernelsOf<Bfloat16> bfloat16_amx_gru_after = KernelsIn<GruAfter, AmxBfloat16>::all;
extern const KernelsOf<Bfloat16> bfloat16_amx_gru_before = KernelsIn<GruBefore, AmxBfloat16>::all;

}  // namespace gatewise
