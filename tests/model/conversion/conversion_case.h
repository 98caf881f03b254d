// What the tests of conversions share.

#ifndef SWITCHYARD_TESTS_MODEL_CONVERSION_CONVERSION_CASE_H_
#define SWITCHYARD_TESTS_MODEL_CONVERSION_CONVERSION_CASE_H_

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "base/compute_pool.h"
#include "base/mapped_file.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "model/conversion/convert.h"
#include "model/weight_formats.h"
#include "tests/testing/matchers.h"

namespace switchyard::model {

inline absl::Status Convert(const std::string& model_dir,
                            const std::string& out_dir,
                            const WeightFormats& formats, ComputePool* pool,
                            ConversionProgress progress = {}) {
  return ConvertCheckpoint({.model_dir = model_dir,
                            .out_dir = out_dir,
                            .formats = formats,
                            .pool = pool,
                            .progress = std::move(progress)});
}

inline absl::Status Convert(const std::string& model_dir,
                            const std::string& out_dir,
                            absl::string_view format) {
  InlinePool pool;
  return Convert(model_dir, out_dir, ParseWeightFormats(format).value(), &pool);
}

inline std::unique_ptr<Checkpoint> Open(const std::string& directory) {
  auto checkpoint = Checkpoint::Open(directory);
  EXPECT_THAT(checkpoint, testing::IsOk());
  return *std::move(checkpoint);
}

// Every file of a directory, by name.
inline std::map<std::string, std::string> Contents(
    const std::string& directory) {
  std::map<std::string, std::string> contents;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    contents[entry.path().filename().string()] =
        ReadFile(entry.path().string(), 1 << 30).value();
  }
  return contents;
}

}  // namespace switchyard::model

#endif  // SWITCHYARD_TESTS_MODEL_CONVERSION_CONVERSION_CASE_H_
