// One cell's kernels for float32 in one instruction set. Compiled once for each, with GATEWISE_ISA and GATEWISE_CELL
// naming them.
#include "float32.h"
#include "run.h"

#define GATEWISE_JOIN_(a, b) a##b
#define GATEWISE_JOIN(a, b) GATEWISE_JOIN_(a, b)

namespace gatewise {

extern const KernelsOf<float> GATEWISE_JOIN(GATEWISE_JOIN(kernels_, GATEWISE_ISA), GATEWISE_JOIN(_, GATEWISE_CELL)) =
    KernelsIn<GATEWISE_JOIN(cell_, GATEWISE_CELL), Float32>::all;

}  // namespace gatewise
