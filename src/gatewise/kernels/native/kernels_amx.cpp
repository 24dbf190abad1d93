// The kernels for bfloat16 by AMX's tiles.
#include "amx.h"
#include "run.h"

namespace gatewise {

using In = KernelsIn<AmxBfloat16>;

extern const KernelsOf<Bfloat16> bfloat16_amx = {
    In::saved_size, In::kept_size, In::forward_workspace_size, In::backward_workspace_size, In::forward, In::backward,
};

}  // namespace gatewise
