// Integers in groups with scales: how quantised weights and activations lie in
// memory. docs/formats.md is the same contract for files.
//
// Weights. 16 consecutive rows are a panel, so that one 512-bit register holds
// four columns of a panel, a row in each 32-bit lane, and every row sums up in
// a lane of its own. A panel is a sequence of blocks of 64 columns, ascending;
// a block has two groups of 32 columns, and each row of a group a scale:
//
//   bytes      what
//   64         scales, f16: group 0 of rows 0..15, group 1 of rows 0..15
//   kQ8 1024   for quad j = 0..15: rows 0..15, columns 4j..4j+3 of the block:
//              u8 = q + 128, q in [-127, 127]
//   kQ4  512   for quad j = 0..7: rows 0..15, four bytes each: byte i has
//   column
//              4j + i (group 0) in its low nibble, column 32 + 4j + i (group 1)
//              in its high one: u4 = q + 8, q in [-8, 7]
//
// A weight is q * scale. Rows and columns that a matrix lacks to a whole panel
// or block have scale 0 and q 0. 8.5 and 4.5 bits a weight.
//
// Activations. A row of `cols` floats becomes signed bytes with one f32 scale
// for each group of 32 and, because weights are stored with an offset, the sum
// of each group's bytes.

#ifndef SWITCHYARD_KERNELS_QUANTIZED_H_
#define SWITCHYARD_KERNELS_QUANTIZED_H_

#include <cstddef>
#include <cstdint>

#include "kernels/matrix.h"

namespace switchyard::kernels {

inline constexpr int64_t kGroupColumns = 32;
inline constexpr int64_t kBlockColumns = 64;
inline constexpr int64_t kPanelRows = 16;
inline constexpr int64_t kScaleBytesPerBlock = 64;

[[gnu::always_inline]] inline constexpr int64_t PaddedRows(int64_t rows) {
  return (rows + kPanelRows - 1) / kPanelRows * kPanelRows;
}
[[gnu::always_inline]] inline constexpr int64_t PaddedColumns(int64_t cols) {
  return (cols + kBlockColumns - 1) / kBlockColumns * kBlockColumns;
}
// Groups of a row, those of the padding included: even.
[[gnu::always_inline]] inline constexpr int64_t NumGroups(int64_t cols) {
  return PaddedColumns(cols) / kGroupColumns;
}

// Bytes of one block: 1088 or 576. REQUIRES: IsQuantized(dtype).
[[gnu::always_inline]] inline constexpr int64_t BlockBytes(DType dtype) {
  return kScaleBytesPerBlock +
         kPanelRows * kBlockColumns / (dtype == DType::kQ4 ? 2 : 1);
}
// Bytes of one panel. REQUIRES: IsQuantized(dtype).
[[gnu::always_inline]] inline constexpr int64_t PanelBytes(DType dtype,
                                                           int64_t cols) {
  return PaddedColumns(cols) / kBlockColumns * BlockBytes(dtype);
}

// Bytes of a whole matrix of any dtype.
[[gnu::always_inline]] inline constexpr int64_t WeightBytes(DType dtype,
                                                            int64_t rows,
                                                            int64_t cols) {
  return IsQuantized(dtype)
             ? PaddedRows(rows) / kPanelRows * PanelBytes(dtype, cols)
             : rows * cols * static_cast<int64_t>(DTypeBytes(dtype));
}

// Quantised activations of some rows; a view. Rows lie without gaps.
struct QuantizedRows {
  const int8_t* values = nullptr;  // [rows, PaddedColumns(cols)], padding 0
  const float* scales = nullptr;   // [rows, NumGroups(cols)], padding 0
  const int32_t* sums = nullptr;   // [rows, NumGroups(cols)]: of the values
  int64_t cols = 0;
};

// The same from row `row` on.
[[gnu::always_inline]] inline constexpr QuantizedRows RowsFrom(
    const QuantizedRows& x, int64_t row) {
  return {x.values + row * PaddedColumns(x.cols),
          x.scales + row * NumGroups(x.cols), x.sums + row * NumGroups(x.cols),
          x.cols};
}

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_QUANTIZED_H_
