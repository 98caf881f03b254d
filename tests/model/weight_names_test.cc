#include "model/weight_names.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/config.h"
#include "tests/model/checkpoint_test_util.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"

namespace switchyard::model {
namespace {

using testing::FixturePath;
using testing::IsOk;
using testing::NamedTensor;

// The reference's totals for the released models.
TEST(WeightNames, CountsAndParametersOfTheReleasedModels) {
  const auto text =
      ReadFile(FixturePath("configs/config.qwen3-next-80b-a3b.json"), 1 << 20);
  const ModelConfig config = ParseModelConfig(text.value()).value();
  for (const bool with_mtp : {false, true}) {
    for (const ExpertForm form : {ExpertForm::kSeparate, ExpertForm::kFused}) {
      int64_t tensors = 0;
      int64_t parameters = 0;
      const auto count = [&](const std::string&,
                             absl::Span<const int64_t> shape) {
        ++tensors;
        int64_t n = 1;
        for (int64_t size : shape) n *= size;
        parameters += n;
        return absl::OkStatus();
      };
      const int layers = 48 + (with_mtp ? 1 : 0);
      EXPECT_THAT(ForEachNonExpertWeight(config, with_mtp, count), IsOk());
      for (int layer = 0; layer < layers; ++layer) {
        EXPECT_THAT(ForEachExpertWeight(config, layer, form, count), IsOk());
      }
      EXPECT_EQ(parameters, with_mtp ? 81324862720 : 79674391296);
      if (form == ExpertForm::kSeparate) {
        EXPECT_EQ(tensors, with_mtp ? 75944 : 74391);
      } else {
        EXPECT_EQ(tensors, (with_mtp ? 75944 : 74391) - layers * (3 * 512 - 2));
      }
    }
  }
}

// The list holds exactly the fixtures' tensors.
TEST(WeightNames, EqualTheFixtures) {
  for (const char* name : {"tiny_a_bf16", "tiny_a_yarn", "tiny_b_fp32"}) {
    const auto checkpoint = Open(FixturePath(name));
    std::map<std::string, std::vector<int64_t>> expected;
    const auto add = [&](const std::string& tensor,
                         absl::Span<const int64_t> shape) {
      expected.emplace(tensor,
                       std::vector<int64_t>(shape.begin(), shape.end()));
      return absl::OkStatus();
    };
    ASSERT_THAT(ForEachNonExpertWeight(checkpoint->config(), true, add),
                IsOk());
    for (int layer = 0; layer < checkpoint->num_expert_layers(); ++layer) {
      if (!checkpoint->LayerHasExperts(layer)) continue;
      ASSERT_THAT(ForEachExpertWeight(checkpoint->config(), layer,
                                      ExpertForm::kSeparate, add),
                  IsOk());
    }
    std::map<std::string, std::vector<int64_t>> found;
    for (const NamedTensor& tensor : Tensors(FixturePath(name))) {
      found[tensor.name] = tensor.shape;
    }
    EXPECT_EQ(found, expected) << name;
  }
}

}  // namespace
}  // namespace switchyard::model
