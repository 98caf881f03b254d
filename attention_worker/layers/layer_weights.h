// The weights of each kind of layer, as the checkpoint has them.
//
// Matrices are views into mapped files, or into copies of their bytes
// (model/weight_copies.h), in the file's dtype and row order; the kernels widen
// them on the fly, and the fused projections are regrouped in their outputs
// (gated_delta_net.h), so that no matrix is ever rearranged. Vectors are copied
// as floats.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_LAYER_WEIGHTS_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_LAYER_WEIGHTS_H_

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "attention_worker/layers/weight_reader.h"
#include "kernels/matrix.h"

namespace switchyard::attention_worker {

// full_attention; D = head_dim.
struct GatedAttentionWeights {
  kernels::WeightView q_proj;  // [heads * 2 * D, H]: per head, query then gate
  kernels::WeightView k_proj;  // [kv heads * D, H]
  kernels::WeightView v_proj;  // [kv heads * D, H]
  kernels::WeightView o_proj;  // [H, heads * D]
  std::vector<float> q_norm;   // [D], zero-centred
  std::vector<float> k_norm;   // [D], zero-centred
};

// linear_attention; r = nv / nk.
struct GatedDeltaNetWeights {
  // Per key head: q (dk), k (dk), v (r * dv), z (r * dv).
  kernels::WeightView in_proj_qkvz;  // [2 * nk * dk + 2 * nv * dv, H]
  // Per key head: b (r), a (r).
  kernels::WeightView in_proj_ba;  // [2 * nv, H]
  kernels::WeightView out_proj;    // [H, nv * dv]
  std::vector<float> conv1d;       // [2 * nk * dk + nv * dv, K], q | k | v
  std::vector<float> decay_rate;   // [nv], exp(A_log)
  std::vector<float> dt_bias;      // [nv]
  std::vector<float> norm;         // [dv], plain
};

// A dense MLP, and the shared expert's; I = its inner width.
struct DenseMlpWeights {
  kernels::WeightView gate_proj;  // [I, H]
  kernels::WeightView up_proj;    // [I, H]
  kernels::WeightView down_proj;  // [H, I]
};

struct MoeWeights {
  kernels::WeightView gate;  // [E, H]
  DenseMlpWeights shared_expert;
  kernels::WeightView shared_expert_gate;  // [1, H]
};

struct DecoderLayerWeights {
  std::vector<float> input_layernorm;           // [H], zero-centred
  std::vector<float> post_attention_layernorm;  // [H], zero-centred
  std::variant<GatedAttentionWeights, GatedDeltaNetWeights> mixer;
  std::variant<MoeWeights, DenseMlpWeights> ffn;
};

// What is not in a layer.
struct ModelWeights {
  kernels::WeightView embed_tokens;  // [V, H]
  std::vector<float> norm;           // [H], zero-centred
  kernels::WeightView lm_head;       // [V, H]; embed_tokens if tied
  std::vector<DecoderLayerWeights> layers;
};

// The MTP head's own; embedding and lm_head are the model's.
struct MtpWeights {
  kernels::WeightView fc;                    // [H, 2 H]: embedding half first
  std::vector<float> pre_fc_norm_embedding;  // [H], zero-centred
  std::vector<float> pre_fc_norm_hidden;     // [H], zero-centred
  std::vector<float> norm;                   // [H], zero-centred
  DecoderLayerWeights layer;                 // full attention and MoE
};

// They ask `reader` for tensors; values are vouched for after
// reader->ReadAll().
absl::StatusOr<ModelWeights> FindModelWeights(WeightReader* reader);
absl::StatusOr<MtpWeights> FindMtpWeights(WeightReader* reader);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_LAYER_WEIGHTS_H_
