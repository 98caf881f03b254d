#include "fabric/wire/expert_terms.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/quantized.h"

namespace switchyard::fabric {

absl::optional<uint32_t> CommonVersion(const ProtocolRange& a,
                                       const ProtocolRange& b) {
  const uint32_t newest = std::min(a.newest, b.newest);
  if (newest < std::max(a.oldest, b.oldest)) return absl::nullopt;
  return newest;
}

std::string FormatRange(const ProtocolRange& range) {
  return range.oldest == range.newest
             ? absl::StrCat(range.newest)
             : absl::StrCat(range.oldest, " to ", range.newest);
}

ProtocolRange RangeOf(const v1::Hello& hello) {
  return {.oldest = hello.oldest_protocol_version() == 0
                        ? hello.protocol_version()
                        : hello.oldest_protocol_version(),
          .newest = hello.protocol_version()};
}

v1::WeightFormat WeightFormatOf(kernels::DType expert_dtype) {
  switch (expert_dtype) {
    case kernels::DType::kQ8:
      return v1::WEIGHT_FORMAT_Q8_GROUP32;
    case kernels::DType::kQ4:
      return v1::WEIGHT_FORMAT_Q4_GROUP32;
    case kernels::DType::kBF16Dot:
      return v1::WEIGHT_FORMAT_BF16_DOT;
    case kernels::DType::kBF16:
    case kernels::DType::kF16:
    case kernels::DType::kF32:
      break;
  }
  return v1::WEIGHT_FORMAT_CHECKPOINT_F32;
}

v1::ActivationFormat ActivationFormatOf(v1::WeightFormat format) {
  switch (format) {
    case v1::WEIGHT_FORMAT_CHECKPOINT_F32:
      return v1::ACTIVATION_FORMAT_F32;
    case v1::WEIGHT_FORMAT_BF16_DOT:
      return v1::ACTIVATION_FORMAT_BF16;
    default:
      return v1::ACTIVATION_FORMAT_I8_GROUP32;
  }
}

int64_t ActivationRowBytes(v1::ActivationFormat format, int64_t hidden_size) {
  switch (format) {
    case v1::ACTIVATION_FORMAT_I8_GROUP32:
      return kernels::PaddedColumns(hidden_size) +
             kernels::NumGroups(hidden_size) *
                 static_cast<int64_t>(sizeof(float));
    case v1::ACTIVATION_FORMAT_BF16:
      return hidden_size * static_cast<int64_t>(sizeof(uint16_t));
    default:
      return hidden_size * static_cast<int64_t>(sizeof(float));
  }
}

}  // namespace switchyard::fabric
