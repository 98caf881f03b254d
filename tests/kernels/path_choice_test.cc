// Which body is used for how many tokens.

#include "kernels/path_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernel_table.h"
#include "tests/kernels/amx_model.h"

namespace switchyard::kernels {
namespace {

using ::testing::ElementsAre;

std::vector<int64_t> few_calls, many_calls;  // their tokens

void Few(const WeightView&, int64_t, int64_t, const QuantizedRows&,
         int64_t tokens, float*, int64_t) {
  few_calls.push_back(tokens);
}
void Many(const WeightView&, int64_t, int64_t, const QuantizedRows&,
          int64_t tokens, float*, int64_t) {
  many_calls.push_back(tokens);
}
void WrongInOneBit(const WeightView& weight, int64_t row_begin, int64_t row_end,
                   const QuantizedRows& x, int64_t tokens, float* y,
                   int64_t y_stride) {
  kScalarKernels.quantized_matmul(weight, row_begin, row_end, x, tokens, y,
                                  y_stride);
  // A token that only many have.
  if (tokens == 37) y[36 * y_stride] = -y[36 * y_stride];
}

TEST(PathChoiceTest, IsTheLeastNumberFromWhichTheSecondAlwaysWins) {
  const PathChoice choice = ChoosePaths({{DType::kQ8, 1, 1, 2},
                                         {DType::kQ8, 4, 3, 2},
                                         {DType::kQ8, 8, 2, 3},
                                         {DType::kQ8, 16, 3, 2},
                                         {DType::kQ8, 32, 5, 4},
                                         {DType::kQ4, 1, 1, 2},
                                         {DType::kQ4, 64, 2, 2}});
  EXPECT_EQ(choice.q8_tokens, 16);
  EXPECT_EQ(choice.q4_tokens, PathChoice::kNever);
  EXPECT_EQ(DescribeChoice(choice), "from 16 token(s) of q8, never for q4");
}

TEST(PathChoiceTest, TokensDecide) {
  few_calls.clear();
  many_calls.clear();
  SetPaths({&Few, &Many, {.q8_tokens = 8, .q4_tokens = PathChoice::kNever}});
  const WeightView q8 = {nullptr, DType::kQ8, 16, 64};
  const WeightView q4 = {nullptr, DType::kQ4, 16, 64};
  for (const int64_t tokens : {1, 7, 8, 300}) {
    QuantizedMatmulByPath(q8, 0, 16, {}, tokens, nullptr, 16);
  }
  QuantizedMatmulByPath(q4, 0, 16, {}, 301, nullptr, 16);
  EXPECT_THAT(few_calls, ElementsAre(1, 7, 301));
  EXPECT_THAT(many_calls, ElementsAre(8, 300));
}

TEST(PathChoiceTest, EveryMeasurementHasTimesOfBoth) {
  const QuantizedMatmulKernel best =
      AvailableKernels().back()->quantized_matmul;
  const std::vector<PathTime> times = MeasurePaths(best, best);
  ASSERT_FALSE(times.empty());
  for (const PathTime& time : times) {
    EXPECT_GT(time.few_seconds, 0);
    EXPECT_GT(time.many_seconds, 0);
  }
  EXPECT_EQ(times.back().dtype, DType::kQ4);
}

TEST(PathChoiceTest, OtherBitsAreSeen) {
  for (const KernelTable* table : AvailableKernels()) {
    EXPECT_TRUE(
        SameProducts(kScalarKernels.quantized_matmul, table->quantized_matmul))
        << table->name;
#if defined(__x86_64__)
    if (std::string(table->name) == "avx512") {
      EXPECT_TRUE(
          SameProducts(table->quantized_matmul, kModelledAmxQuantizedMatmul));
    }
#endif
  }
  EXPECT_FALSE(SameProducts(kScalarKernels.quantized_matmul, &WrongInOneBit));
}

}  // namespace
}  // namespace switchyard::kernels
