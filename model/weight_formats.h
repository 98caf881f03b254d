// Which tensors of a model may be quantised, and what somebody asks for.

#ifndef SWITCHYARD_MODEL_WEIGHT_FORMATS_H_
#define SWITCHYARD_MODEL_WEIGHT_FORMATS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::model {

// What a tensor is to a converter.
enum class TensorKind {
  kExpert,  // a routed expert's matrix
  kDense,  // projections of both attentions, dense MLPs, shared experts, mtp.fc
  kLmHead,
  // Norms, convolution, A_log, dt_bias, the embedding, the router gate,
  // shared_expert_gate and in_proj_ba: small, or sensitive, or looked up by
  // row. They keep their source's dtype.
  kOther,
};

// Of a name of model/weight_names.h (separate form).
TensorKind KindOf(absl::string_view tensor_name);

enum class WeightFormat {
  kSource,  // bits as they are (FP8: its values as bf16)
  kBF16,    // rounded to nearest, ties to even
  kQ8,
  kQ4,
  kBF16Dot,  // as kBF16, to be multiplied by activations in bf16
};

// "source", "bf16", "q8", "q4", "bf16dot".
absl::string_view WeightFormatName(WeightFormat format);
// INVALID_ARGUMENT lists the names.
absl::StatusOr<WeightFormat> ParseWeightFormat(absl::string_view name);

// A format for each kind that has a choice.
struct WeightFormats {
  WeightFormat experts = WeightFormat::kSource;
  WeightFormat dense = WeightFormat::kSource;
  WeightFormat lm_head = WeightFormat::kSource;

  friend bool operator==(const WeightFormats&, const WeightFormats&) = default;
};

// A WeightFormat's name: that one for all three; "q4-q8": experts in q4, the
// rest in q8. INVALID_ARGUMENT lists the names.
absl::StatusOr<WeightFormats> ParseWeightFormats(absl::string_view name);

// REQUIRES: kind != kOther.
WeightFormat FormatOf(const WeightFormats& formats, TensorKind kind);

// "experts q4, dense q8, lm_head q8".
std::string DescribeFormats(const WeightFormats& formats);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_WEIGHT_FORMATS_H_
