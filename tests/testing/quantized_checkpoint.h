// A checkpoint whose matrices are quantised, or of kBF16Dot, in memory: what a
// converted one is, without files.

#ifndef SWITCHYARD_TESTS_TESTING_QUANTIZED_CHECKPOINT_H_
#define SWITCHYARD_TESTS_TESTING_QUANTIZED_CHECKPOINT_H_

#include <memory>

#include "kernels/matrix.h"
#include "model/checkpoint.h"

namespace switchyard::testing {

// A copy of `weights` as `dtype` (kQ8, kQ4 or kBF16Dot), in memory that `owner`
// keeps.
kernels::WeightView QuantizeWeights(const kernels::WeightView& weights,
                                    kernels::DType dtype,
                                    std::shared_ptr<const void>* owner);

// `original` with these dtypes; kF32 leaves a kind as it is. Dense are the
// matrices of attention, delta nets, MLPs, shared experts, mtp.fc and lm_head;
// embedding, vectors, gates and in_proj_ba stay, as in `switchyard convert`.
std::unique_ptr<model::Checkpoint> QuantizeCheckpoint(
    std::unique_ptr<model::Checkpoint> original, kernels::DType experts,
    kernels::DType dense);

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_QUANTIZED_CHECKPOINT_H_
