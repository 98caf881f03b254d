// Which body of the kernels this process runs. The contracts are in
// kernel_contracts.h.

#ifndef SWITCHYARD_KERNELS_KERNEL_TABLE_H_
#define SWITCHYARD_KERNELS_KERNEL_TABLE_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "kernels/kernel_contracts.h"
#include "kernels/matrix.h"

namespace switchyard::kernels {

// The best table that this CPU can run, or the one that SelectKernels forced.
// Thread-safe.
const KernelTable& Kernels();

// The tables that this CPU can run, the scalar reference first, the best last.
std::vector<const KernelTable*> AvailableKernels();

// `isa`: "auto", "scalar", "avx2", "avx512", "avx512vnni", "avx512bf16", or
// "amx" (kernels/amx_kernels.h). Call before the first Kernels(), from main:
// whoever holds a table already keeps it (the results are the same bits).
// INVALID_ARGUMENT: unknown name. FAILED_PRECONDITION: not on this CPU.
absl::Status SelectKernels(absl::string_view isa);

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_KERNEL_TABLE_H_
