// The table "amx": the best other one, with products of quantised weights with
// many tokens on AMX's tiles. Only where somebody asks for it
// (--isa=amx): nobody has run it on a processor yet, only on a model of the
// instructions (tests/kernels/amx_model.cc).

#ifndef SWITCHYARD_KERNELS_AMX_KERNELS_H_
#define SWITCHYARD_KERNELS_AMX_KERNELS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/kernel_contracts.h"
#include "kernels/path_choice.h"

namespace switchyard::kernels {

struct AmxKernels {
  const KernelTable* table = nullptr;
  // What MeasurePaths found: VNNI's body and AMX's.
  std::vector<PathTime> times;
  PathChoice choice;
};

// Asks the CPU, and the system for the tiles, which this process then keeps;
// compares bits with VNNI's body (SameProducts); and measures from how many
// tokens on AMX's is the faster. Some 10 ms, at the first call; later ones give
// the same. FAILED_PRECONDITION says what is missing. INTERNAL: other bits.
// Thread-safe.
absl::StatusOr<AmxKernels> PrepareAmxKernels();

// Kernels() for a log: its name, and of "amx" what it chose.
std::string DescribeKernels();

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_AMX_KERNELS_H_
