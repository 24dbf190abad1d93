// One cell's kernels for float32 in one instruction set. Compiled once for each, with GATEWISE_ISA and GATEWISE_CELL
// naming them.
#include "float32.h"
#include "run.h"

#define GATEWISE_JOIN_(a, b) a##b
#define GATEWISE_JOIN(a, b) GATEWISE_JOIN_(a, b)

namespace gatewise {

using PlainCell = GATEWISE_JOIN(cell_, GATEWISE_CELL);
// What regularises acts on recurrent weights; it has no kernel for a projection: Python asks for none.
constexpr bool is_regularised = PlainCell::has_recurrent_weights && !projects<PlainCell>;
using ExtendedCell = std::conditional_t<is_regularised, Extended<PlainCell>, PlainCell>;

extern const KernelsOf<float> GATEWISE_JOIN(GATEWISE_JOIN(kernels_, GATEWISE_ISA), GATEWISE_JOIN(_, GATEWISE_CELL)) =
    KernelsIn<PlainCell, Float32>::all;
extern const KernelsOf<float> GATEWISE_JOIN(GATEWISE_JOIN(extended_, GATEWISE_ISA), GATEWISE_JOIN(_, GATEWISE_CELL)) =
    KernelsIn<ExtendedCell, Float32>::all;

}  // namespace gatewise
