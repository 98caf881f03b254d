#include "model/weight_formats.h"

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/weight_names.h"

namespace switchyard::model {
namespace {

constexpr WeightFormat kFormats[] = {WeightFormat::kSource, WeightFormat::kBF16,
                                     WeightFormat::kQ8, WeightFormat::kQ4,
                                     WeightFormat::kBF16Dot};
constexpr char kExpertsInfix[] = ".mlp.experts.";
constexpr char kQ4ExpertsOnly[] = "q4-q8";

}  // namespace

TensorKind KindOf(absl::string_view tensor_name) {
  static constexpr const char* kDenseSuffixes[] = {
      ".self_attn.q_proj.weight",
      ".self_attn.k_proj.weight",
      ".self_attn.v_proj.weight",
      ".self_attn.o_proj.weight",
      ".linear_attn.in_proj_qkvz.weight",
      ".linear_attn.out_proj.weight",
      ".mlp.gate_proj.weight",
      ".mlp.up_proj.weight",
      ".mlp.down_proj.weight",
      ".mlp.shared_expert.gate_proj.weight",
      ".mlp.shared_expert.up_proj.weight",
      ".mlp.shared_expert.down_proj.weight",
  };
  if (tensor_name == kLmHeadName) return TensorKind::kLmHead;
  if (tensor_name == kMtpFcName) return TensorKind::kDense;
  if (absl::StrContains(tensor_name, kExpertsInfix)) return TensorKind::kExpert;
  for (const char* suffix : kDenseSuffixes) {
    if (absl::EndsWith(tensor_name, suffix)) return TensorKind::kDense;
  }
  return TensorKind::kOther;
}

absl::string_view WeightFormatName(WeightFormat format) {
  switch (format) {
    case WeightFormat::kSource:
      return "source";
    case WeightFormat::kBF16:
      return "bf16";
    case WeightFormat::kQ8:
      return "q8";
    case WeightFormat::kQ4:
      return "q4";
    case WeightFormat::kBF16Dot:
      return "bf16dot";
  }
  SY_CHECK(false);
}

absl::StatusOr<WeightFormat> ParseWeightFormat(absl::string_view name) {
  for (const WeightFormat format : kFormats) {
    if (name == WeightFormatName(format)) return format;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "'", name,
      "' is no weight format; source, bf16, bf16dot, q8 and q4 are"));
}

absl::StatusOr<WeightFormats> ParseWeightFormats(absl::string_view name) {
  if (name == kQ4ExpertsOnly) {
    return WeightFormats{WeightFormat::kQ4, WeightFormat::kQ8,
                         WeightFormat::kQ8};
  }
  const absl::StatusOr<WeightFormat> all = ParseWeightFormat(name);
  if (all.ok()) return WeightFormats{*all, *all, *all};
  return absl::InvalidArgumentError(absl::StrCat(
      "'", name, "' is no format; source, bf16, bf16dot, q8, q4 and ",
      kQ4ExpertsOnly, " (experts in q4, the rest in q8) are"));
}

WeightFormat FormatOf(const WeightFormats& formats, TensorKind kind) {
  switch (kind) {
    case TensorKind::kExpert:
      return formats.experts;
    case TensorKind::kDense:
      return formats.dense;
    case TensorKind::kLmHead:
      return formats.lm_head;
    case TensorKind::kOther:
      break;
  }
  SY_CHECK(false);
}

std::string DescribeFormats(const WeightFormats& formats) {
  return absl::StrCat("experts ", WeightFormatName(formats.experts), ", dense ",
                      WeightFormatName(formats.dense), ", lm_head ",
                      WeightFormatName(formats.lm_head));
}

}  // namespace switchyard::model
