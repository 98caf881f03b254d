// Checkpoints opened, taken apart and changed.

#ifndef SWITCHYARD_TESTS_MODEL_CHECKPOINT_TEST_UTIL_H_
#define SWITCHYARD_TESTS_MODEL_CHECKPOINT_TEST_UTIL_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/matchers.h"

namespace switchyard::model {

// Expects success; the process ends without.
inline std::unique_ptr<Checkpoint> Open(const std::string& directory) {
  auto checkpoint = Checkpoint::Open(directory);
  EXPECT_THAT(checkpoint, testing::IsOk());
  return *std::move(checkpoint);
}

inline std::string ConfigOf(const std::string& directory) {
  const auto text = ReadFile(directory + "/config.json", 1 << 20);
  EXPECT_THAT(text, testing::IsOk());
  return *text;
}

// `config_json` with `changes` laid over it; null removes a key.
inline std::string Changed(const std::string& config_json,
                           const std::string& changes) {
  Json config = ParseJson(config_json).value();
  const Json changed = ParseJson(changes).value();
  for (const auto& [key, value] : changed.items()) {
    if (value.is_null()) {
      config.erase(key);
    } else {
      config[key] = value;
    }
  }
  return DumpJson(config);
}

inline std::vector<testing::NamedTensor> Tensors(const std::string& directory) {
  auto tensors = testing::ReadTensors(directory);
  EXPECT_THAT(tensors, testing::IsOk());
  return *std::move(tensors);
}

}  // namespace switchyard::model

#endif  // SWITCHYARD_TESTS_MODEL_CHECKPOINT_TEST_UTIL_H_
