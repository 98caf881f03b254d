// Matrix products by oneDNN: a second opinion on our own kernels in tests, and
// a yardstick in benchmarks. Not on the serving path, because nothing fixes the
// order of its sums (docs/decisions/0010).
//
// The only folder that sees dnnl.hpp. Works with oneDNN 2 and 3.

#ifndef SWITCHYARD_KERNELS_ONEDNN_MATMUL_H_
#define SWITCHYARD_KERNELS_ONEDNN_MATMUL_H_

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/matrix.h"

namespace switchyard::kernels {

// y[T, R] = x[T, C] W[R, C]^T for one W. Holds a copy of W in oneDNN's own
// layout, and the primitives of the token counts that it has seen last.
//
// Uses oneDNN's threads (OMP_NUM_THREADS). Not thread-safe.
class OneDnnMatmul {
 public:
  // Copies `weight`. bf16: x is rounded to bf16, too. INVALID_ARGUMENT: f16, or
  // a size below 1. UNIMPLEMENTED: oneDNN has no such product on this CPU.
  static absl::StatusOr<std::unique_ptr<OneDnnMatmul>> Create(
      const WeightView& weight);

  ~OneDnnMatmul();
  OneDnnMatmul(const OneDnnMatmul&) = delete;
  OneDnnMatmul& operator=(const OneDnnMatmul&) = delete;

  // x is [tokens, cols] and y [tokens, rows], both without gaps; tokens >= 1.
  absl::Status Run(const float* x, int64_t tokens, float* y);

 private:
  struct Impl;
  explicit OneDnnMatmul(std::unique_ptr<Impl> impl);

  const std::unique_ptr<Impl> impl_;
};

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_ONEDNN_MATMUL_H_
