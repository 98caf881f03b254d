#include "model/expert_blob.h"

#include "absl/strings/str_cat.h"
#include "kernels/quantized.h"
#include "model/weight_names.h"

namespace switchyard::model {
namespace {

int64_t Align(int64_t bytes) {
  return (bytes + kTensorAlignment - 1) / kTensorAlignment * kTensorAlignment;
}

}  // namespace

ExpertBlobLayout::ExpertBlobLayout(const ModelConfig& config,
                                   kernels::DType dtype) {
  const int64_t H = config.hidden_size;
  const int64_t I = config.moe_intermediate_size;
  up_offset = Align(kernels::WeightBytes(dtype, I, H));
  down_offset = 2 * up_offset;
  bytes = down_offset + Align(kernels::WeightBytes(dtype, H, I));
}

ExpertWeights ViewExpertBlob(const ModelConfig& config, kernels::DType dtype,
                             const void* data) {
  const int64_t H = config.hidden_size;
  const int64_t I = config.moe_intermediate_size;
  const ExpertBlobLayout layout(config, dtype);
  const uint8_t* const bytes = static_cast<const uint8_t*>(data);
  return {.gate_proj = {bytes, dtype, I, H},
          .up_proj = {bytes + layout.up_offset, dtype, I, H},
          .down_proj = {bytes + layout.down_offset, dtype, H, I}};
}

std::string ExpertBlobName(const ModelConfig& config, int layer, int expert) {
  return absl::StrCat(LayerPrefix(config, layer), "mlp.experts.", expert);
}

}  // namespace switchyard::model
