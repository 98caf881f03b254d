#include "experts/quantized_buffer.h"

#include <cstring>

#include "base/check.h"

namespace switchyard::experts {

using kernels::kBlockColumns;
using kernels::kGroupColumns;
using kernels::NumGroups;
using kernels::PaddedColumns;

void QuantizedBuffer::Reserve(int64_t rows) {
  if (rows <= rows_) return;
  rows_ = rows;
  const int64_t groups = rows * NumGroups(cols_);
  values_ = AlignedBuffer(rows * PaddedColumns(cols_) / sizeof(float));
  scales_ = AlignedBuffer(groups);
  sums_ = AlignedBuffer(groups);
}

void QuantizedBuffer::Quantize(const kernels::KernelTable& kernels,
                               const float* x, int64_t row, int64_t column,
                               int64_t n) {
  SY_DCHECK(row < rows_ && column % kBlockColumns == 0 && column + n <= cols_);
  const int64_t group = row * NumGroups(cols_) + column / kGroupColumns;
  kernels.quantize_row(x, n, values() + row * PaddedColumns(cols_) + column,
                       scales_.data() + group, sums() + group);
}

void QuantizedBuffer::Copy(const kernels::QuantizedRows& from, int64_t from_row,
                           int64_t row) {
  SY_DCHECK(row < rows_ && from.cols == cols_);
  const int64_t width = PaddedColumns(cols_);
  const int64_t groups = NumGroups(cols_);
  std::memcpy(values() + row * width, from.values + from_row * width, width);
  std::memcpy(scales_.data() + row * groups, from.scales + from_row * groups,
              groups * sizeof(float));
  std::memcpy(sums() + row * groups, from.sums + from_row * groups,
              groups * sizeof(int32_t));
}

kernels::QuantizedRows QuantizedBuffer::Rows(int64_t row) const {
  return kernels::RowsFrom(
      {reinterpret_cast<const int8_t*>(values_.data()), scales_.data(),
       reinterpret_cast<const int32_t*>(sums_.data()), cols_},
      row);
}

}  // namespace switchyard::experts
