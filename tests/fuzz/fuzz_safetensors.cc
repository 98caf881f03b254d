#include <vector>

#include "base/check.h"
#include "model/safetensors.h"
#include "tests/fuzz/fuzz_target.h"

namespace switchyard::fuzz {

void FuzzSafetensors(absl::Span<const uint8_t> bytes) {
  // A copy of the exact size, so that a read beyond the end is seen.
  const std::vector<uint8_t> file(bytes.begin(), bytes.end());
  const auto tensors = model::ParseSafetensors(file);
  if (!tensors.ok()) {
    SY_CHECK(!tensors.status().message().empty());
    return;
  }
  // Accepted: all tensors lie in the file and tile its data.
  const int64_t size = static_cast<int64_t>(file.size());
  int64_t tensor_bytes = 0;
  int64_t first = size;
  for (const auto& [name, tensor] : *tensors) {
    SY_CHECK(8 <= tensor.begin && tensor.begin <= tensor.end);
    SY_CHECK(tensor.end <= size);
    tensor_bytes += tensor.end - tensor.begin;
    first = tensor.begin < first ? tensor.begin : first;
    int64_t elements = 1;
    for (int64_t dimension : tensor.shape) {
      SY_CHECK(dimension >= 0);
      elements *= dimension;  // UBSan sees an overflow
    }
    if (tensor.dtype == "BF16" || tensor.dtype == "F16") {
      SY_CHECK(tensor.end - tensor.begin == 2 * elements);
    } else if (tensor.dtype == "F32") {
      SY_CHECK(tensor.end - tensor.begin == 4 * elements);
    }
  }
  SY_CHECK(first + tensor_bytes == size);
}

}  // namespace switchyard::fuzz

SWITCHYARD_FUZZER_ENTRY(FuzzSafetensors);
