// Views of matrices in memory. Views own nothing.

#ifndef SWITCHYARD_KERNELS_MATRIX_H_
#define SWITCHYARD_KERNELS_MATRIX_H_

#include <cstddef>
#include <cstdint>

namespace switchyard::kernels {

// Element types of weights as they lie in a checkpoint, little-endian.
// bf16 is the upper half of an IEEE float32.
enum class DType : uint8_t { kBF16, kF16, kF32 };

inline constexpr size_t DTypeBytes(DType dtype) {
  return dtype == DType::kF32 ? 4 : 2;
}

// A row-major weight matrix [rows, cols] = [outputs, inputs], rows one after
// another without gaps. `data` need not be aligned beyond 2 bytes: a
// safetensors file promises no more.
struct WeightView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
};

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_MATRIX_H_
