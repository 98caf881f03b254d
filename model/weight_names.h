// The one list of the tensors of a Qwen3-Next checkpoint: their names and
// shapes from a config. Loader, fingerprint, and tests' writers all use it.
//
// Letters in shapes are those of model/config.h. Names are the original
// repositories', with the prefix "model."; files without that prefix, or with
// "model.language_model." (Qwen3.5), are not read.

#ifndef SWITCHYARD_MODEL_WEIGHT_NAMES_H_
#define SWITCHYARD_MODEL_WEIGHT_NAMES_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "model/config.h"

namespace switchyard::model {

// How a layer's routed experts lie in the file.
enum class ExpertForm {
  kSeparate,  // mlp.experts.{e}.{gate,up,down}_proj.weight
  kFused,     // mlp.experts.gate_up_proj [E, 2I, H], mlp.experts.down_proj
              // [E, H, I]: as transformers 5 holds them in memory
};

inline constexpr char kEmbeddingName[] = "model.embed_tokens.weight";
inline constexpr char kFinalNormName[] = "model.norm.weight";
inline constexpr char kLmHeadName[] = "lm_head.weight";
inline constexpr char kMtpFcName[] = "mtp.fc.weight";
// Every name of the MTP head begins with it.
inline constexpr char kMtpPrefix[] = "mtp.";

// "model.layers.7.", or "mtp.layers.0." for layer == num_hidden_layers.
std::string LayerPrefix(const ModelConfig& config, int layer);

// Names of one expert's tensors in the separate form.
struct ExpertNames {
  std::string gate_proj;  // [I, H]
  std::string up_proj;    // [I, H]
  std::string down_proj;  // [H, I]
};
ExpertNames SeparateExpertNames(const ModelConfig& config, int layer,
                                int expert);
std::string FusedGateUpName(const ModelConfig& config, int layer);
std::string FusedDownName(const ModelConfig& config, int layer);

// Visits a tensor; an error ends the walk and is returned.
using WeightVisitor = absl::FunctionRef<absl::Status(
    const std::string& name, absl::Span<const int64_t> shape)>;

// Every tensor but the routed experts', in one fixed order: top level, layers,
// MTP head.
absl::Status ForEachNonExpertWeight(const ModelConfig& config, bool with_mtp,
                                    WeightVisitor visit);

// The routed experts' tensors of one layer, ascending by expert.
// REQUIRES: the layer has experts (the MTP layer always has).
absl::Status ForEachExpertWeight(const ModelConfig& config, int layer,
                                 ExpertForm form, WeightVisitor visit);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_WEIGHT_NAMES_H_
