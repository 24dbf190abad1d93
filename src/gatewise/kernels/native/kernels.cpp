// One instruction set's kernels for float32. Compiled once for each, with GATEWISE_ISA naming it.
#include "float32.h"
#include "run.h"

#define GATEWISE_JOIN_(a, b) a##b
#define GATEWISE_JOIN(a, b) GATEWISE_JOIN_(a, b)
#define GATEWISE_TEXT_(a) #a
#define GATEWISE_TEXT(a) GATEWISE_TEXT_(a)

namespace gatewise {

using In = KernelsIn<Float32>;

extern const Kernels GATEWISE_JOIN(kernels_, GATEWISE_ISA) = {
    {In::saved_size, In::kept_size, In::forward_workspace_size, In::backward_workspace_size, In::forward, In::backward},
    GATEWISE_TEXT(GATEWISE_ISA),
    GATEWISE_TEXT(GATEWISE_ISA),
    nullptr,
};

}  // namespace gatewise
