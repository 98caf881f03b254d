// Memory for quantised activations (kernels/quantized.h).

#ifndef SWITCHYARD_EXPERTS_QUANTIZED_BUFFER_H_
#define SWITCHYARD_EXPERTS_QUANTIZED_BUFFER_H_

#include <cstdint>

#include "base/aligned_buffer.h"
#include "kernels/kernel_table.h"
#include "kernels/quantized.h"

namespace switchyard::experts {

// Rows of `cols` activations each. Several threads may write disjoint blocks of
// 64 columns, or disjoint rows, at a time.
class QuantizedBuffer {
 public:
  explicit QuantizedBuffer(int64_t cols) : cols_(cols) {}

  // Room for so many rows; what was in it is lost if it has to grow.
  void Reserve(int64_t rows);

  // Quantises x [n] to columns [column, column + n) of `row`, the padding up to
  // the next multiple of 64 included. `column` is a multiple of 64. The bits
  // are those of quantising the whole row at once: groups know nothing of one
  // another.
  void Quantize(const kernels::KernelTable& kernels, const float* x,
                int64_t row, int64_t column, int64_t n);

  // Row `from_row` of `from` (of the same width) to `row`.
  void Copy(const kernels::QuantizedRows& from, int64_t from_row, int64_t row);

  // From `row` on.
  kernels::QuantizedRows Rows(int64_t row) const;

 private:
  int8_t* values() { return reinterpret_cast<int8_t*>(values_.data()); }
  int32_t* sums() { return reinterpret_cast<int32_t*>(sums_.data()); }

  const int64_t cols_;
  int64_t rows_ = 0;
  AlignedBuffer values_;  // int8 [rows, PaddedColumns(cols)]
  AlignedBuffer scales_;  // [rows, NumGroups(cols)]
  AlignedBuffer sums_;    // int32 [rows, NumGroups(cols)]
};

}  // namespace switchyard::experts

#endif  // SWITCHYARD_EXPERTS_QUANTIZED_BUFFER_H_
