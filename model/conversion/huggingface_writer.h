// A source's weights as Hugging Face's layout: what every other engine reads.

#ifndef SWITCHYARD_MODEL_CONVERSION_HUGGINGFACE_WRITER_H_
#define SWITCHYARD_MODEL_CONVERSION_HUGGINGFACE_WRITER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/compute_pool.h"
#include "model/conversion/convert.h"
#include "model/conversion/weight_source.h"

namespace switchyard::model {

struct WriteHuggingFaceOptions {
  const WeightSource* source = nullptr;  // not owned
  std::string out_dir;
  std::vector<CompanionFile> companions;  // config.json among them
  ComputePool* pool = nullptr;            // not owned
  ConversionProgress progress;            // may be empty
  int64_t max_shard_bytes = 4'000'000'000;
};

// bf16, experts separate: model-0000i-of-0000n.safetensors and their index. A
// killed run goes on as WriteConvertedCheckpoint's does, and does not load
// before it is whole; errors as there, but a finished directory counts as a
// foreign one.
absl::Status WriteHuggingFaceCheckpoint(const WriteHuggingFaceOptions& options);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CONVERSION_HUGGINGFACE_WRITER_H_
