#include "model/conversion/conversion_plan.h"

#include <memory>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "kernels/quantized.h"
#include "model/conversion/encode.h"
#include "model/expert_blob.h"
#include "model/weight_names.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

using kernels::DType;

constexpr char kBlobDType[] = "U8";
constexpr char kTensorsFile[] = "dense.safetensors";

absl::StatusOr<PlannedTensor> PlanTensor(const WeightSource& source,
                                         const WeightFormats& formats,
                                         const std::string& name,
                                         absl::Span<const int64_t> shape) {
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<SourceTensor> tensor,
                      source.Find(name));
  const TensorKind kind = KindOf(name);
  const WeightFormat format = kind == TensorKind::kOther
                                  ? WeightFormat::kSource
                                  : FormatOf(formats, kind);
  return PlannedTensor{
      name, StoredDType(format, tensor->dtype()), {shape.begin(), shape.end()}};
}

absl::Status PlanTensors(const WeightSource& source,
                         const WeightFormats& formats, ConversionPlan* plan) {
  const ModelConfig& config = source.config();
  const auto add = [&](const std::string& name,
                       absl::Span<const int64_t> shape) -> absl::Status {
    SY_ASSIGN_OR_RETURN(PlannedTensor tensor,
                        PlanTensor(source, formats, name, shape));
    plan->tensors.push_back(std::move(tensor));
    return absl::OkStatus();
  };
  SY_RETURN_IF_ERROR(ForEachNonExpertWeight(config, source.has_mtp(), add));
  // The embedding keeps its dtype, so a head that has another one stands
  // beside it.
  const bool own_head = formats.lm_head != WeightFormat::kSource &&
                        formats.lm_head != WeightFormat::kBF16;
  if (config.tie_word_embeddings && own_head) {
    SY_RETURN_IF_ERROR(
        add(kLmHeadName, {config.vocab_size, config.hidden_size}));
  }
  std::vector<ContainerTensor> stored;
  for (const PlannedTensor& tensor : plan->tensors) {
    int64_t elements = 1;
    for (const int64_t size : tensor.shape) elements *= size;
    if (kernels::IsQuantized(tensor.dtype)) {
      const int64_t bytes =
          kernels::WeightBytes(tensor.dtype, tensor.shape[0], tensor.shape[1]);
      stored.push_back({tensor.name, kBlobDType, {bytes}, bytes});
    } else {
      stored.push_back(
          {tensor.name, std::string(DTypeName(FileDType(tensor.dtype))),
           tensor.shape, kernels::WeightBytes(tensor.dtype, 1, elements)});
    }
  }
  plan->files.push_back({kTensorsFile, -1, PlanContainer(std::move(stored))});
  return absl::OkStatus();
}

std::vector<int> ExpertLayers(const WeightSource& source) {
  const ModelConfig& config = source.config();
  std::vector<int> layers;
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (config.is_moe[layer]) layers.push_back(layer);
  }
  if (source.has_mtp()) layers.push_back(config.num_hidden_layers);
  return layers;
}

// kF32 holds the values of all others.
absl::StatusOr<DType> CommonDType(const WeightSource& source,
                                  const std::vector<int>& layers) {
  bool first = true;
  DType common = DType::kF32;
  for (const int layer : layers) {
    for (int e = 0; e < source.config().num_experts; ++e) {
      SY_ASSIGN_OR_RETURN(const SourceExpert expert,
                          source.FindExpert(layer, e));
      for (const SourceTensor* tensor :
           {expert.gate_proj.get(), expert.up_proj.get(),
            expert.down_proj.get()}) {
        if (!first && tensor->dtype() != common) return DType::kF32;
        common = tensor->dtype();
        first = false;
      }
    }
  }
  return common;
}

absl::Status PlanExperts(const WeightSource& source,
                         const WeightFormats& formats, ConversionPlan* plan) {
  const ModelConfig& config = source.config();
  const std::vector<int> layers = ExpertLayers(source);
  DType common = DType::kF32;
  if (formats.experts == WeightFormat::kSource) {
    SY_ASSIGN_OR_RETURN(common, CommonDType(source, layers));
  }
  plan->expert_dtype = StoredDType(formats.experts, common);
  const int64_t bytes = ExpertBlobLayout(config, plan->expert_dtype).bytes;
  for (const int layer : layers) {
    std::vector<ContainerTensor> blobs;
    blobs.reserve(config.num_experts);
    for (int e = 0; e < config.num_experts; ++e) {
      blobs.push_back(
          {ExpertBlobName(config, layer, e), kBlobDType, {bytes}, bytes});
    }
    plan->files.push_back({absl::StrFormat("experts-%05d.safetensors", layer),
                           layer, PlanContainer(std::move(blobs))});
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ConversionPlan> PlanConversion(const WeightSource& source,
                                              const WeightFormats& formats) {
  ConversionPlan plan;
  SY_RETURN_IF_ERROR(PlanTensors(source, formats, &plan));
  SY_RETURN_IF_ERROR(PlanExperts(source, formats, &plan));
  for (const PlannedFile& file : plan.files) {
    plan.total_bytes += file.container.file_bytes;
  }
  return plan;
}

}  // namespace switchyard::model
