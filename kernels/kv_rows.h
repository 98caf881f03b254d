// Rows of a KV cache: how one token's key or value of one KV head lies in
// memory. docs/formats.md has the same contract, and the errors.
//
//   kF32   [dim] f32
//   kBF16  [dim] upper halves of f32, rounded to nearest even when written
//   kI8    [dim] s8, then one f32 scale for each group of 32 columns (the last
//          one may be shorter): a value is q * scale, rounded once
//
// A row is written once and read, by everybody, as the floats that it stands
// for; all arithmetic on it is in f32.

#ifndef SWITCHYARD_KERNELS_KV_ROWS_H_
#define SWITCHYARD_KERNELS_KV_ROWS_H_

#include <cstdint>

namespace switchyard::kernels {

enum class KvDType : uint8_t { kF32, kBF16, kI8 };

inline constexpr int64_t kKvGroupColumns = 32;

// Of one row of `dim` columns.
[[gnu::always_inline]] inline constexpr int64_t KvRowBytes(KvDType dtype,
                                                           int64_t dim) {
  return dtype == KvDType::kF32 ? 4 * dim
         : dtype == KvDType::kBF16
             ? 2 * dim
             : dim + (dim + kKvGroupColumns - 1) / kKvGroupColumns * 4;
}

// Some rows, one after another without gaps; a view. No alignment.
struct KvRows {
  const void* data = nullptr;
  KvDType dtype = KvDType::kF32;
  // What will be read next: asked into the cache, as many bytes as the rows
  // have, while they are computed with. Null: nothing. Any address may stand
  // here: it is never read.
  const void* next = nullptr;
};

// x [dim] as a row of `dtype`. Of kI8, for each group:
//   scale = max |x[i]| / 127
//   q[i] = x[i] / scale, rounded to nearest even, held within [-127, 127]
// A group in which no magnitude reaches 2^-100 is zeros. A NaN or an infinity
// makes its group's scale NaN, so that it is seen in every result. The same
// bits on every machine.
void EncodeKvRow(KvDType dtype, const float* x, int64_t dim, void* row);

// The floats that the row stands for.
void DecodeKvRow(KvDType dtype, const void* row, int64_t dim, float* x);

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_KV_ROWS_H_
