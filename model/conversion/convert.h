// Makes converted checkpoints (docs/formats.md): quantised, one contiguous
// piece for each expert, with a checksum of everything.

#ifndef SWITCHYARD_MODEL_CONVERSION_CONVERT_H_
#define SWITCHYARD_MODEL_CONVERSION_CONVERT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/compute_pool.h"
#include "model/conversion/weight_source.h"
#include "model/weight_formats.h"

namespace switchyard::model {

// Bytes written and in all; what an earlier run wrote counts as written from
// the first call on. On the caller's thread.
using ConversionProgress = std::function<void(int64_t done, int64_t total)>;

// A small file that stands beside the weights.
struct CompanionFile {
  std::string name;
  std::string content;
};

struct ConvertOptions {
  std::string model_dir;
  std::string out_dir;
  WeightFormats formats;
  ComputePool* pool = nullptr;  // not owned
  ConversionProgress progress;  // may be empty
};

// Converts a directory of Hugging Face's layout (OpenWeightSource), file by
// file. A run that is killed at any moment leaves a directory that does not
// load; the same call goes on where it was. Memory: some rows, or experts, for
// each thread; mapped pages of the source are given back. Errors as
// OpenWeightSource, EncodeRows, TargetDirectory::Open and OutputFile; no half
// file keeps its name.
absl::Status ConvertCheckpoint(const ConvertOptions& options);

struct WriteConvertedOptions {
  const WeightSource* source = nullptr;  // not owned
  std::string out_dir;
  WeightFormats formats;
  std::vector<CompanionFile> companions;  // config.json among them
  ComputePool* pool = nullptr;            // not owned
  ConversionProgress progress;            // may be empty
};

// The same of weights from anywhere.
absl::Status WriteConvertedCheckpoint(const WriteConvertedOptions& options);

// config.json, generation_config.json, the tokenizer's files and chat template:
// those of them that `directory` has. As ReadFile.
absl::StatusOr<std::vector<CompanionFile>> ReadCompanionFiles(
    const std::string& directory);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_CONVERSION_CONVERT_H_
