// What both ends of proto/expert.proto must see alike before rows flow.

#ifndef SWITCHYARD_FABRIC_WIRE_EXPERT_TERMS_H_
#define SWITCHYARD_FABRIC_WIRE_EXPERT_TERMS_H_

#include <cstdint>
#include <string>

#include "absl/types/optional.h"
#include "kernels/matrix.h"
#include "proto/expert.pb.h"

namespace switchyard::fabric {

// Versions of expert.proto that a build speaks; what each brought is told
// there.
struct ProtocolRange {
  uint32_t oldest = 2;
  uint32_t newest = 3;
};
inline constexpr ProtocolRange kExpertProtocol;
// From this one on changed holdings are told as what changed.
inline constexpr uint32_t kHoldingsChangeVersion = 3;

// The newest version that both speak; none: there is no such version.
absl::optional<uint32_t> CommonVersion(const ProtocolRange& a,
                                       const ProtocolRange& b);
// "2 to 3", or "2".
std::string FormatRange(const ProtocolRange& range);
// What a hello says: builds of before version 3 speak one version only.
ProtocolRange RangeOf(const v1::Hello& hello);

// How experts of these weights are computed, and what rows they take.
v1::WeightFormat WeightFormatOf(kernels::DType expert_dtype);
v1::ActivationFormat ActivationFormatOf(v1::WeightFormat format);
// Of one row of activations of `hidden_size` columns, on the wire.
int64_t ActivationRowBytes(v1::ActivationFormat format, int64_t hidden_size);

}  // namespace switchyard::fabric

#endif  // SWITCHYARD_FABRIC_WIRE_EXPERT_TERMS_H_
