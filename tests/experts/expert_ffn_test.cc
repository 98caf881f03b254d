#include "experts/expert_ffn.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/kernel_table.h"
#include "model/checkpoint.h"
#include "tests/experts/plain_expert.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/quantized_checkpoint.h"

namespace switchyard::experts {
namespace {

using kernels::DType;
using testing::NamedTensor;

// Sizes that are no multiple of any vector length.
constexpr int64_t kHidden = 37;
constexpr int64_t kInner = 21;
constexpr int64_t kTokens = 5;

// Weights that own their memory, of any dtype.
class Expert {
 public:
  explicit Expert(DType dtype)
      : gate_(Make(kInner, kHidden, 0.3f, dtype)),
        up_(Make(kInner, kHidden, 0.7f, dtype)),
        down_(Make(kHidden, kInner, 1.1f, dtype)) {}

  model::ExpertWeights weights() const {
    return {View(gate_), View(up_), View(down_)};
  }

 private:
  static NamedTensor Make(int64_t rows, int64_t cols, float phase,
                          DType dtype) {
    std::vector<float> values;
    for (int64_t i = 0; i < rows * cols; ++i) {
      values.push_back(0.4f * std::sin(phase * static_cast<float>(i + 1)));
    }
    return testing::MakeTensor("w", {rows, cols}, values, dtype);
  }
  static kernels::WeightView View(const NamedTensor& tensor) {
    return {tensor.bytes.data(), tensor.dtype, tensor.shape[0],
            tensor.shape[1]};
  }
  const NamedTensor gate_;
  const NamedTensor up_;
  const NamedTensor down_;
};

std::vector<float> Inputs() {
  std::vector<float> x;
  for (int64_t i = 0; i < kTokens * kHidden; ++i) {
    x.push_back(std::cos(0.9f * static_cast<float>(i)));
  }
  return x;
}

class ExpertFfnTest : public ::testing::TestWithParam<DType> {};

INSTANTIATE_TEST_SUITE_P(DTypes, ExpertFfnTest,
                         ::testing::Values(DType::kBF16, DType::kF16,
                                           DType::kF32));

TEST_P(ExpertFfnTest, EqualsThePlainDefinition) {
  const Expert expert(GetParam());
  const std::vector<float> x = Inputs();
  for (const kernels::KernelTable* table : kernels::AvailableKernels()) {
    std::vector<float> y(kTokens * kHidden,
                         std::numeric_limits<float>::quiet_NaN());
    ExpertFfn(*table, expert.weights(), x.data(), kTokens, y.data());
    for (int64_t t = 0; t < kTokens; ++t) {
      const std::vector<double> expected =
          PlainExpert(expert.weights(), x.data() + t * kHidden);
      for (int64_t h = 0; h < kHidden; ++h) {
        EXPECT_NEAR(y[t * kHidden + h], expected[h], 1e-5)
            << table->name << " token " << t << " column " << h;
      }
    }
  }
}

// The engine cuts both halves into blocks of columns: any cut gives the same
// bits, and nothing outside the block is written.
TEST_P(ExpertFfnTest, AnyCutIntoColumnsGivesTheSameBits) {
  const Expert expert(GetParam());
  const std::vector<float> x = Inputs();
  const kernels::KernelTable& table = kernels::Kernels();
  std::vector<float> whole(kTokens * kHidden);
  ExpertFfn(table, expert.weights(), x.data(), kTokens, whole.data());

  constexpr float kUntouched = 12345;
  for (const int64_t block : {1, 5, 16, 20}) {
    std::vector<float> inner(kTokens * kInner, kUntouched);
    std::vector<float> up(kTokens * kInner, kUntouched);
    for (int64_t begin = 0; begin < kInner; begin += block) {
      const int64_t end = std::min(begin + block, kInner);
      ExpertInner(table, expert.weights(), begin, end, x.data(), kHidden,
                  kTokens, inner.data(), up.data());
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t i = end; i < kInner; ++i) {
          ASSERT_EQ(inner[t * kInner + i], kUntouched);
          ASSERT_EQ(up[t * kInner + i], kUntouched);
        }
      }
    }
    std::vector<float> y(kTokens * kHidden, kUntouched);
    for (int64_t begin = 0; begin < kHidden; begin += block) {
      ExpertOutput(table, expert.weights(), begin,
                   std::min(begin + block, kHidden), inner.data(), kTokens,
                   y.data());
    }
    EXPECT_EQ(std::memcmp(y.data(), whole.data(), y.size() * sizeof(float)), 0)
        << "blocks of " << block;
  }
}

class EncodedExpertFfnTest : public ::testing::TestWithParam<DType> {};

INSTANTIATE_TEST_SUITE_P(DTypes, EncodedExpertFfnTest,
                         ::testing::Values(DType::kQ8, DType::kQ4,
                                           DType::kBF16Dot));

// Widths that end within a block, and more tokens than a tile has.
TEST_P(EncodedExpertFfnTest, HasTheDefinitionsBits) {
  constexpr int64_t kH = 100, kI = 150, kRows = 70;
  std::vector<float> values(kH * kI);
  std::shared_ptr<const void> owners[3];
  const auto make = [&](int64_t rows, int64_t cols, float phase,
                        std::shared_ptr<const void>* owner) {
    for (int64_t i = 0; i < kH * kI; ++i) {
      values[i] = 0.4f * std::sin(phase * static_cast<float>(i + 1));
    }
    return testing::QuantizeWeights({values.data(), DType::kF32, rows, cols},
                                    GetParam(), owner);
  };
  const model::ExpertWeights weights = {make(kI, kH, 0.3f, &owners[0]),
                                        make(kI, kH, 0.7f, &owners[1]),
                                        make(kH, kI, 1.1f, &owners[2])};
  std::vector<float> x(kRows * kH);
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = std::cos(0.9f * static_cast<float>(i));
  }
  for (const kernels::KernelTable* table : kernels::AvailableKernels()) {
    std::vector<float> y(kRows * kH, std::numeric_limits<float>::quiet_NaN());
    ExpertFfn(*table, weights, x.data(), kRows, y.data());
    for (int64_t t = 0; t < kRows; ++t) {
      const std::vector<float> expected =
          ExpertByDefinition(weights, x.data() + t * kH);
      ASSERT_EQ(std::memcmp(&y[t * kH], expected.data(), kH * sizeof(float)), 0)
          << table->name << " token " << t;
    }
  }
}

}  // namespace
}  // namespace switchyard::experts
