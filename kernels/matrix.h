// Views of matrices in memory. Views own nothing.

#ifndef SWITCHYARD_KERNELS_MATRIX_H_
#define SWITCHYARD_KERNELS_MATRIX_H_

#include <cstddef>
#include <cstdint>

namespace switchyard::kernels {

// How weights lie in memory, little-endian. The first three are a checkpoint's
// own; bf16 is the upper half of an IEEE float32. kQ8 and kQ4 are integers in
// groups with scales, in panels of rows (kernels/quantized.h). kBF16Dot lies as
// kBF16, but is multiplied by activations in bf16 too
// (KernelTable::bf16_matmul).
enum class DType : uint8_t { kBF16, kF16, kF32, kQ8, kQ4, kBF16Dot };

[[gnu::always_inline]] inline constexpr bool IsQuantized(DType dtype) {
  return dtype == DType::kQ8 || dtype == DType::kQ4;
}

// What rows of activations are when they are multiplied by weights.
enum class RowFormat : uint8_t {
  kF32,
  kBF16,       // KernelTable::round_to_bf16
  kI8Group32,  // KernelTable::quantize_row
};
[[gnu::always_inline]] inline constexpr RowFormat RowFormatOf(DType weights) {
  return IsQuantized(weights)         ? RowFormat::kI8Group32
         : weights == DType::kBF16Dot ? RowFormat::kBF16
                                      : RowFormat::kF32;
}

// Bytes of one weight. REQUIRES: !IsQuantized(dtype).
[[gnu::always_inline]] inline constexpr size_t DTypeBytes(DType dtype) {
  return dtype == DType::kF32 ? 4 : 2;
}

// A weight matrix [rows, cols] = [outputs, inputs].
//
// Not quantised: row-major, rows one after another without gaps; `data` need
// not be aligned beyond 2 bytes, since a safetensors file promises no more.
// Quantised: panels one after another (kernels/quantized.h); `data` is aligned
// to 64 bytes.
struct WeightView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_MATRIX_H_
