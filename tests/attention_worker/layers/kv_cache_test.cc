// What narrower keys and values do to a model's logits: something, and little.
// docs/formats.md has the errors on a trained model.

#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/kv_rows.h"
#include "tests/attention_worker/layers/test_model.h"
#include "tests/testing/fixture_path.h"

namespace switchyard::attention_worker {
namespace {

using kernels::KvDType;
using ::switchyard::testing::FixturePath;

class KvCacheTest
    : public ::testing::TestWithParam<std::tuple<const char*, KvDType>> {};

INSTANTIATE_TEST_SUITE_P(
    Fixtures, KvCacheTest,
    ::testing::Combine(::testing::Values("tiny_a_bf16", "tiny_b_fp32"),
                       ::testing::Values(KvDType::kBF16, KvDType::kI8)));

TEST_P(KvCacheTest, LogitsMoveALittle) {
  const auto [fixture, dtype] = GetParam();
  TestModel exact(FixturePath(fixture));
  TestModel narrow(FixturePath(fixture), {.kv = dtype});
  const std::vector<int32_t> tokens =
      SomeTokens(200, exact.config().vocab_size);
  const auto exact_state = exact.NewState();
  const auto narrow_state = narrow.NewState();
  const std::vector<float> expected = exact.Run(exact_state.get(), tokens);
  const std::vector<float> logits = narrow.Run(narrow_state.get(), tokens);
  const double error = MaxDifference(logits, expected) / MaxAbs(expected);
  RecordProperty("relative_error", std::to_string(error));
  EXPECT_GT(error, 0);
  EXPECT_LE(error, dtype == KvDType::kBF16 ? 0.02 : 0.06);
  EXPECT_LT(narrow.runner().state_shape().BytesPerToken(),
            exact.runner().state_shape().BytesPerToken());
  // What is read is what was written: rounding it again changes nothing.
  const StateShape& shape = narrow.runner().state_shape();
  const KvLayer kv = {narrow_state->pages(), shape.kv, /*layer=*/0};
  const std::vector<float> keys = CachedKeys(kv, 200);
  const std::vector<float> values = CachedValues(kv, 200);
  const int64_t dim = shape.kv.head_dim;
  std::vector<uint8_t> row(static_cast<size_t>(shape.kv.RowBytes()));
  std::vector<float> again(static_cast<size_t>(dim));
  for (const std::vector<float>& rows : {keys, values}) {
    for (size_t i = 0; i < rows.size(); i += static_cast<size_t>(dim)) {
      kernels::EncodeKvRow(dtype, rows.data() + i, dim, row.data());
      kernels::DecodeKvRow(dtype, row.data(), dim, again.data());
      const absl::Span<const float> once(rows.data() + i, again.size());
      ASSERT_LE(MaxDifference(again, once), 1e-6 * MaxAbs(once));
    }
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
