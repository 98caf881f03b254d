// One routed expert as one contiguous piece of a converted checkpoint.

#ifndef SWITCHYARD_MODEL_EXPERT_BLOB_H_
#define SWITCHYARD_MODEL_EXPERT_BLOB_H_

#include <cstdint>
#include <string>

#include "kernels/matrix.h"
#include "model/checkpoint.h"
#include "model/config.h"

namespace switchyard::model {

// Alignment of a blob, of its matrices, and of every tensor of a converted
// checkpoint, in bytes.
inline constexpr int64_t kTensorAlignment = 64;

// gate_proj [I, H], up_proj [I, H], down_proj [H, I] of one dtype, one after
// another, each at a multiple of kTensorAlignment; zeros between and after
// them.
struct ExpertBlobLayout {
  ExpertBlobLayout(const ModelConfig& config, kernels::DType dtype);

  int64_t up_offset = 0;  // bytes; gate_proj is at 0
  int64_t down_offset = 0;
  int64_t bytes = 0;  // a multiple of kTensorAlignment
};

// Views of the matrices of the blob at `data`.
ExpertWeights ViewExpertBlob(const ModelConfig& config, kernels::DType dtype,
                             const void* data);

// "model.layers.3.mlp.experts.17": the blob's name in its file.
std::string ExpertBlobName(const ModelConfig& config, int layer, int expert);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_EXPERT_BLOB_H_
