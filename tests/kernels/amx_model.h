// The AMX body of quantized_matmul on a model of its instructions, for CPUs
// with AVX-512 and no AMX: everything but the instructions is what runs on the
// real ones (kernels/simd/quantized_amx.inc).

#ifndef SWITCHYARD_TESTS_KERNELS_AMX_MODEL_H_
#define SWITCHYARD_TESTS_KERNELS_AMX_MODEL_H_

#include "kernels/kernel_contracts.h"

namespace switchyard::kernels {

// Needs what the table "avx512" needs. Ends the process where a processor would
// raise an error: shapes that do not go together, tiles without shapes.
extern const QuantizedMatmulKernel kModelledAmxQuantizedMatmul;

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_TESTS_KERNELS_AMX_MODEL_H_
