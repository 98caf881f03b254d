// Products of quantised weights by oneDNN: integer products of one group at a
// time, then our own scaling, in the order of the groups. Integer sums are
// exact in any order, so the bits are those of KernelTable::quantized_matmul: a
// second opinion on it in tests, and a yardstick in benchmarks. Not on the
// serving path (docs/decisions/0010).

#ifndef SWITCHYARD_KERNELS_ONEDNN_QUANTIZED_MATMUL_H_
#define SWITCHYARD_KERNELS_ONEDNN_QUANTIZED_MATMUL_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/matrix.h"
#include "kernels/quantized.h"

namespace switchyard::kernels {

// y[T, R] = x[T, C] W[R, C]^T for one quantised W and one T. Holds a copy of W,
// a byte for each weight, in oneDNN's own layout.
//
// Uses oneDNN's threads (OMP_NUM_THREADS). Not thread-safe.
class OneDnnQuantizedMatmul {
 public:
  // Copies `weight`. INVALID_ARGUMENT: not quantised, or a size below 1.
  // UNIMPLEMENTED: oneDNN has no exact product of bytes on this CPU, which must
  // have AVX-512 VNNI (without it, oneDNN's sums of pairs saturate).
  static absl::StatusOr<std::unique_ptr<OneDnnQuantizedMatmul>> Create(
      const WeightView& weight, int64_t tokens);

  ~OneDnnQuantizedMatmul();
  OneDnnQuantizedMatmul(const OneDnnQuantizedMatmul&) = delete;
  OneDnnQuantizedMatmul& operator=(const OneDnnQuantizedMatmul&) = delete;

  // x has the tokens and columns of Create; y is [tokens, rows] without gaps.
  absl::Status Run(const QuantizedRows& x, float* y);

 private:
  struct Impl;
  explicit OneDnnQuantizedMatmul(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_ONEDNN_QUANTIZED_MATMUL_H_
