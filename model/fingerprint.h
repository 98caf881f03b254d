// One name for "these weights under this arithmetic": what two processes
// compare before one sends rows to the other. docs/decisions/0020 says why a
// sample.

#ifndef SWITCHYARD_MODEL_FINGERPRINT_H_
#define SWITCHYARD_MODEL_FINGERPRINT_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/matrix.h"
#include "model/config.h"
#include "model/sha256.h"

namespace switchyard::model {

// The first and the last so many bytes of every tensor are hashed; all of a
// tensor of at most twice as many.
inline constexpr int64_t kFingerprintSampleBytes = 4096;

// The values of config.json that change arithmetic, a line each, the same for
// every spelling of the same config. Not in it: eos ids, context length, and
// what the tensors' shapes already say.
std::string CanonicalConfig(const ModelConfig& config);

// Asks the kernel to read the sample of mapped weights, without waiting: for
// all tensors before the first Add, so that the disk is not asked for one page
// after another.
void PrefetchFingerprintSample(const kernels::WeightView& weights);

// Add every tensor in the order of model/weight_names.h, routed experts in the
// separate form whichever form the file has: the same weights give the same
// fingerprint in other shards, files, or expert forms.
class FingerprintBuilder {
 public:
  explicit FingerprintBuilder(const ModelConfig& config);
  void Add(absl::string_view name, const kernels::WeightView& weights);
  // Of a dtype that no view has: spelled as in the file, with all its bytes (of
  // which the sample counts).
  void Add(absl::string_view name, absl::string_view dtype,
           absl::Span<const int64_t> shape, absl::Span<const uint8_t> bytes);
  // 64 lower-case hex digits. Once.
  std::string Finish();

 private:
  Sha256 hash_;
};

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_FINGERPRINT_H_
