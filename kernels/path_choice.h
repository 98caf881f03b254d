// Which of two bodies of quantized_matmul is used for how many tokens: a choice
// by time alone, since the bits are the same.

#ifndef SWITCHYARD_KERNELS_PATH_CHOICE_H_
#define SWITCHYARD_KERNELS_PATH_CHOICE_H_

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "kernels/kernel_contracts.h"
#include "kernels/matrix.h"
#include "kernels/quantized.h"

namespace switchyard::kernels {

// Of one product of 64 rows of 2048 columns, the 80B model's, as experts and
// layers compute them; the best of a few.
struct PathTime {
  DType dtype = DType::kQ8;
  int64_t tokens = 0;
  double few_seconds = 0;
  double many_seconds = 0;
};

// From how many tokens on the second body is used.
struct PathChoice {
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  int64_t q8_tokens = 1;
  int64_t q4_tokens = 1;
};

// Whether both give the same bits for products of both formats with 1 to 40
// tokens: before a body is used that this machine may be the first to run.
// Takes a millisecond or two.
bool SameProducts(QuantizedMatmulKernel a, QuantizedMatmulKernel b);

// `few` and `many` against one another for 1 to 256 tokens, in turn. Takes some
// 10 ms.
std::vector<PathTime> MeasurePaths(QuantizedMatmulKernel few,
                                   QuantizedMatmulKernel many);

// For each format the least number of tokens from which `many` was the faster
// in all measurements.
PathChoice ChoosePaths(const std::vector<PathTime>& times);

// Two bodies, and from how many tokens on the second is used.
struct Paths {
  QuantizedMatmulKernel few = nullptr;
  QuantizedMatmulKernel many = nullptr;
  PathChoice choice;
};

// What QuantizedMatmulByPath does from now on, in the whole process. REQUIRES:
// nobody is in it.
void SetPaths(const Paths& paths);

// KernelTable::quantized_matmul by the paths that were set.
void QuantizedMatmulByPath(const WeightView& weight, int64_t row_begin,
                           int64_t row_end, const QuantizedRows& x,
                           int64_t tokens, float* y, int64_t y_stride);

// "from 16 tokens of q8, never for q4".
std::string DescribeChoice(const PathChoice& choice);

}  // namespace switchyard::kernels

#endif  // SWITCHYARD_KERNELS_PATH_CHOICE_H_
