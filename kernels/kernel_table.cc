#include "kernels/kernel_table.h"

#include <atomic>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "kernels/amx_kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace switchyard::kernels {
namespace {

// What SelectKernels or the first Kernels() chose; null before that.
std::atomic<const KernelTable*> chosen{nullptr};

#if defined(__x86_64__)
// Asked of the CPU itself because clang's __builtin_cpu_supports does not know
// the name. That the system saves the AVX registers is checked with "avx2".
bool CpuHasF16C() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(/*leaf=*/1, &eax, &ebx, &ecx, &edx) != 0 &&
         (ecx & bit_F16C) != 0;
}

bool CpuRunsAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         CpuHasF16C();
}

bool CpuRunsAvx512() {
  return CpuRunsAvx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

bool CpuRunsAvx512Vnni() {
  return CpuRunsAvx512() && __builtin_cpu_supports("avx512vnni");
}

// Every CPU with the second has the first.
bool CpuRunsAvx512Bf16() {
  return CpuRunsAvx512Vnni() && __builtin_cpu_supports("avx512bf16");
}

const KernelTable& Avx512VnniKernels() {
  static const KernelTable kTable = [] {
    KernelTable kernels = kAvx512Kernels;
    kernels.name = "avx512vnni";
    kernels.quantized_matmul = kAvx512VnniQuantizedMatmul;
    return kernels;
  }();
  return kTable;
}

const KernelTable& Avx512Bf16Kernels() {
  static const KernelTable kTable = [] {
    KernelTable kernels = Avx512VnniKernels();
    kernels.name = "avx512bf16";
    kernels.bf16_matmul = kAvx512Bf16Matmul;
    return kernels;
  }();
  return kTable;
}
#endif

}  // namespace

std::vector<const KernelTable*> AvailableKernels() {
  std::vector<const KernelTable*> tables = {&kScalarKernels};
#if defined(__x86_64__)
  if (CpuRunsAvx2()) tables.push_back(&kAvx2Kernels);
  if (CpuRunsAvx512()) tables.push_back(&kAvx512Kernels);
  if (CpuRunsAvx512Vnni()) tables.push_back(&Avx512VnniKernels());
  if (CpuRunsAvx512Bf16()) tables.push_back(&Avx512Bf16Kernels());
#endif
  return tables;
}

const KernelTable& Kernels() {
  const KernelTable* table = chosen.load(std::memory_order_acquire);
  if (table != nullptr) return *table;
  // Threads that come here together find the same best table; one of them
  // stores it, unless SelectKernels was faster, whose choice then stands.
  const KernelTable* const best = AvailableKernels().back();
  if (chosen.compare_exchange_strong(table, best, std::memory_order_acq_rel)) {
    return *best;
  }
  return *table;
}

absl::Status SelectKernels(absl::string_view isa) {
  if (isa == "amx") {
    const absl::StatusOr<AmxKernels> amx = PrepareAmxKernels();
    if (!amx.ok()) return amx.status();
    chosen.store(amx->table, std::memory_order_release);
    return absl::OkStatus();
  }
  const std::vector<const KernelTable*> available = AvailableKernels();
  const KernelTable* table = isa == "auto" ? available.back() : nullptr;
  for (const KernelTable* candidate : available) {
    if (isa == candidate->name) table = candidate;
  }
  if (table != nullptr) {
    chosen.store(table, std::memory_order_release);
    return absl::OkStatus();
  }
  if (isa != "avx2" && isa != "avx512" && isa != "avx512vnni" &&
      isa != "avx512bf16") {
    return absl::InvalidArgumentError(absl::StrCat(
        "unknown instruction set \"", isa,
        "\"; use auto, scalar, avx2, avx512, avx512vnni, avx512bf16 or amx"));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "this CPU cannot run the ", isa, " kernels; use auto, or one of: ",
      absl::StrJoin(available, ", ",
                    [](std::string* out, const KernelTable* candidate) {
                      out->append(candidate->name);
                    })));
}

}  // namespace switchyard::kernels
