#include "attention_worker/moe/encoded_rows.h"

#include "kernels/kernel_table.h"

namespace switchyard::attention_worker {

using kernels::RowFormat;

size_t EncodedRowBytes(RowFormat format, int64_t num_rows, int64_t cols) {
  switch (format) {
    case RowFormat::kF32:
      return 0;
    case RowFormat::kBF16:
      return static_cast<size_t>(num_rows * cols) * sizeof(uint16_t);
    case RowFormat::kI8Group32:
      break;
  }
  const auto group_bytes =
      static_cast<int64_t>(sizeof(float) + sizeof(int32_t));
  return static_cast<size_t>(
      num_rows *
      (kernels::PaddedColumns(cols) + kernels::NumGroups(cols) * group_bytes));
}

EncodedRows EncodeRowsAs(RowFormat format, const float* x, int64_t num_rows,
                         int64_t cols, char* memory) {
  const kernels::KernelTable& kernels = kernels::Kernels();
  if (format == RowFormat::kBF16) {
    auto* const rounded = reinterpret_cast<uint16_t*>(memory);
    kernels.round_to_bf16(x, num_rows * cols, rounded);
    return {{}, rounded};
  }
  if (format == RowFormat::kF32) return {};
  const int64_t columns = kernels::PaddedColumns(cols);
  const int64_t groups = kernels::NumGroups(cols);
  auto* const values = reinterpret_cast<int8_t*>(memory);
  auto* const scales = reinterpret_cast<float*>(memory + num_rows * columns);
  auto* const sums = reinterpret_cast<int32_t*>(scales + num_rows * groups);
  for (int64_t row = 0; row < num_rows; ++row) {
    kernels.quantize_row(x + row * cols, cols, values + row * columns,
                         scales + row * groups, sums + row * groups);
  }
  return {{values, scales, sums, cols}, nullptr};
}

}  // namespace switchyard::attention_worker
