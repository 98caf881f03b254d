#include "kernels/amx_kernels.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "kernels/kernel_table.h"
#include "kernels/simd/amx_tiles.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#endif

namespace switchyard::kernels {
namespace {

#if defined(__x86_64__)

bool CpuHasAmxInt8() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  constexpr unsigned kAmxTile = 1u << 24;
  constexpr unsigned kAmxInt8 = 1u << 25;
  return __get_cpuid_count(/*leaf=*/7, /*subleaf=*/0, &eax, &ebx, &ecx, &edx) !=
             0 &&
         (edx & kAmxTile) != 0 && (edx & kAmxInt8) != 0 &&
         __builtin_cpu_supports("avx512vnni") != 0;
}

// Tiles are 8 KiB of registers, which a process must ask for (Linux 5.16).
absl::Status AskForTiles() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  if (syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("the system does not let this process use AMX's tiles (",
                   std::generic_category().message(errno),
                   "; Linux 5.16 or later does); use --isa=auto"));
}

absl::StatusOr<AmxKernels> Prepare() {
  if (!CpuHasAmxInt8()) {
    return absl::FailedPreconditionError(
        "this CPU has no AMX-INT8, which the amx kernels need; use --isa=auto");
  }
  if (absl::Status status = AskForTiles(); !status.ok()) return status;
  static KernelTable table = *AvailableKernels().back();
  const QuantizedMatmulKernel vnni = table.quantized_matmul;
  if (!SameProducts(vnni, kAvx512AmxQuantizedMatmul)) {
    return absl::InternalError(
        "the amx kernels give other bits than the others on this CPU; use "
        "--isa=auto, and report the CPU");
  }
  AmxKernels amx;
  amx.times = MeasurePaths(vnni, kAvx512AmxQuantizedMatmul);
  amx.choice = ChoosePaths(amx.times);
  SetPaths({vnni, kAvx512AmxQuantizedMatmul, amx.choice});
  table.name = "amx";
  table.quantized_matmul = &QuantizedMatmulByPath;
  amx.table = &table;
  return amx;
}

#else

absl::StatusOr<AmxKernels> Prepare() {
  return absl::FailedPreconditionError("AMX is of x86-64 CPUs; use --isa=auto");
}

#endif

}  // namespace

absl::StatusOr<AmxKernels> PrepareAmxKernels() {
  static const absl::StatusOr<AmxKernels> kPrepared = Prepare();
  return kPrepared;
}

std::string DescribeKernels() {
  const KernelTable& table = Kernels();
  if (absl::string_view(table.name) != "amx") return table.name;
  return absl::StrCat("amx (tiles ",
                      DescribeChoice(PrepareAmxKernels()->choice), "; else ",
                      AvailableKernels().back()->name, ")");
}

}  // namespace switchyard::kernels
