// oneDNN's integer products and ours: the same bits.

#include "kernels/onednn/quantized_matmul.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/kernel_table.h"
#include "kernels/weight_codec.h"
#include "tests/kernels/guarded_buffer.h"
#include "tests/kernels/kernel_testing.h"

namespace switchyard::kernels {
namespace {

void ExpectSameBits(DType dtype, int64_t rows, int64_t cols, int64_t tokens) {
  const std::vector<float> w = RandomFloats(rows * cols, /*seed=*/1);
  GuardedBuffer panels(static_cast<size_t>(WeightBytes(dtype, rows, cols)));
  for (int64_t r = 0; r < rows; r += kPanelRows) {
    ASSERT_TRUE(QuantizePanel(dtype, w.data() + r * cols,
                              std::min(kPanelRows, rows - r), cols,
                              static_cast<uint8_t*>(panels.data()) +
                                  r / kPanelRows * PanelBytes(dtype, cols)));
  }
  const WeightView weight = {panels.data(), dtype, rows, cols};
  const std::vector<float> x = RandomFloats(tokens * cols, /*seed=*/2);
  std::vector<int8_t> values(tokens * PaddedColumns(cols));
  std::vector<float> scales(tokens * NumGroups(cols));
  std::vector<int32_t> sums(scales.size());
  for (int64_t t = 0; t < tokens; ++t) {
    Kernels().quantize_row(
        x.data() + t * cols, cols, values.data() + t * PaddedColumns(cols),
        scales.data() + t * NumGroups(cols), sums.data() + t * NumGroups(cols));
  }
  const QuantizedRows rows_of_x = {values.data(), scales.data(), sums.data(),
                                   cols};
  absl::StatusOr<std::unique_ptr<OneDnnQuantizedMatmul>> onednn =
      OneDnnQuantizedMatmul::Create(weight, tokens);
  ASSERT_TRUE(onednn.ok()) << onednn.status();
  std::vector<float> theirs(tokens * rows);
  const absl::Status status = (*onednn)->Run(rows_of_x, theirs.data());
  ASSERT_TRUE(status.ok()) << status;
  for (const KernelTable* kernels : AvailableKernels()) {
    SCOPED_TRACE(kernels->name);
    std::vector<float> ours(tokens * rows);
    kernels->quantized_matmul(weight, 0, rows, rows_of_x, tokens, ours.data(),
                              rows);
    EXPECT_TRUE(SameBits(ours.data(), theirs.data(), tokens * rows));
  }
}

bool HasVnni() {
  const auto tables = AvailableKernels();
  return std::any_of(tables.begin(), tables.end(), [](const KernelTable* k) {
    return std::string(k->name) == "avx512vnni";
  });
}

TEST(OneDnnQuantizedMatmulTest, HasTheSameBits) {
  if (!HasVnni()) {
    const std::vector<uint8_t> panel(PanelBytes(DType::kQ8, 1));
    EXPECT_EQ(OneDnnQuantizedMatmul::Create({panel.data(), DType::kQ8, 1, 1}, 1)
                  .status()
                  .code(),
              absl::StatusCode::kUnimplemented);
    GTEST_SKIP() << "this CPU has no AVX-512 VNNI";
  }
  for (const DType dtype : {DType::kQ8, DType::kQ4}) {
    for (const int64_t tokens : {1, 7, 40}) {
      ExpectSameBits(dtype, 37, 129, tokens);
      ExpectSameBits(dtype, 64, 2048, tokens);
    }
  }
}

TEST(OneDnnQuantizedMatmulTest, RefusesWhatItCannotDo) {
  const float one = 1;
  EXPECT_EQ(OneDnnQuantizedMatmul::Create({&one, DType::kF32, 1, 1}, 1)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  const std::vector<uint8_t> panel(PanelBytes(DType::kQ8, 1));
  EXPECT_EQ(OneDnnQuantizedMatmul::Create({panel.data(), DType::kQ8, 0, 1}, 1)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(OneDnnQuantizedMatmul::Create({panel.data(), DType::kQ8, 1, 1}, 0)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace switchyard::kernels
