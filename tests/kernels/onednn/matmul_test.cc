// oneDNN's matrix product, and what it says about ours.

#include "kernels/onednn/matmul.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/kernel_table.h"
#include "tests/kernels/kernel_testing.h"

namespace switchyard::kernels {
namespace {

std::vector<uint16_t> UpperHalves(const std::vector<float>& floats) {
  std::vector<uint16_t> halves;
  for (const float value : floats) {
    halves.push_back(
        static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16));
  }
  return halves;
}

// Whether every kernel table and oneDNN agree on W x, up to the roundings of
// sums in different order.
void ExpectAgreement(const WeightView& weight, const std::vector<float>& sizes,
                     int64_t tokens, const std::vector<float>& x,
                     OneDnnMatmul& onednn) {
  const int64_t rows = weight.rows, cols = weight.cols;
  std::vector<float> theirs(tokens * rows);
  const absl::Status status = onednn.Run(x.data(), tokens, theirs.data());
  ASSERT_TRUE(status.ok()) << status;
  for (const KernelTable* kernels : AvailableKernels()) {
    SCOPED_TRACE(kernels->name);
    std::vector<float> ours(tokens * rows);
    kernels->matmul(weight, 0, rows, x.data(), cols, tokens, ours.data(), rows);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        double size = 0;
        for (int64_t c = 0; c < cols; ++c) {
          size += std::abs(static_cast<double>(sizes[r * cols + c]) *
                           x[t * cols + c]);
        }
        // Each of the two may have rounded `cols` times.
        EXPECT_TRUE(Near(ours[t * rows + r], theirs[t * rows + r],
                         2 * static_cast<double>(cols) * kFloatEpsilon * size))
            << "row " << r << " of token " << t << " of " << tokens;
      }
    }
  }
}

TEST(OneDnnMatmulTest, AgreesWithOurs) {
  // More token counts than primitives are kept, and the first one again.
  constexpr int64_t kTokenCounts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 1};
  constexpr int64_t kRows = 37, kCols = 129;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    std::vector<float> w = RandomFloats(kRows * kCols, /*seed=*/1);
    const std::vector<uint16_t> halves = UpperHalves(w);
    const WeightView weight = {dtype == DType::kF32
                                   ? static_cast<const void*>(w.data())
                                   : halves.data(),
                               dtype, kRows, kCols};
    absl::StatusOr<std::unique_ptr<OneDnnMatmul>> onednn =
        OneDnnMatmul::Create(weight);
    if (absl::IsUnimplemented(onednn.status())) {
      GTEST_SKIP() << onednn.status();  // bf16 needs AVX-512 in oneDNN 2
    }
    ASSERT_TRUE(onednn.ok()) << onednn.status();
    for (const int64_t tokens : kTokenCounts) {
      std::vector<float> x = RandomFloats(tokens * kCols, /*seed=*/2);
      if (dtype == DType::kBF16) {
        // Floats that bf16 holds exactly, so that both multiply the same.
        for (float& value : x) {
          value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) &
                                       0xffff0000u);
        }
      }
      ExpectAgreement(weight, w, tokens, x, **onednn);
    }
  }
}

TEST(OneDnnMatmulTest, KeepsACopyOfTheWeights) {
  std::vector<float> w = {2.0f, 3.0f};
  absl::StatusOr<std::unique_ptr<OneDnnMatmul>> onednn =
      OneDnnMatmul::Create({w.data(), DType::kF32, 1, 2});
  ASSERT_TRUE(onednn.ok()) << onednn.status();
  w = {0.0f, 0.0f};
  const float x[] = {10.0f, 100.0f, 1.0f, 1.0f};
  float y[2] = {};
  ASSERT_TRUE((*onednn)->Run(x, 2, y).ok());
  EXPECT_EQ(y[0], 320.0f);
  EXPECT_EQ(y[1], 5.0f);
}

TEST(OneDnnMatmulTest, RefusesWhatItCannotDo) {
  const uint16_t half = 0;
  EXPECT_EQ(OneDnnMatmul::Create({&half, DType::kF16, 1, 1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OneDnnMatmul::Create({&half, DType::kBF16, 0, 1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const float one = 1;
  auto onednn = OneDnnMatmul::Create({&one, DType::kF32, 1, 1});
  ASSERT_TRUE(onednn.ok()) << onednn.status();
  float y = 0;
  EXPECT_EQ((*onednn)->Run(&one, 0, &y).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace switchyard::kernels
