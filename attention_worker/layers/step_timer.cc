#include "attention_worker/layers/step_timer.h"

#include <algorithm>

namespace switchyard::attention_worker {

const char* StepPartName(StepPart part) {
  switch (part) {
    case StepPart::kOther:
      return "other";
    case StepPart::kProjections:
      return "projections";
    case StepPart::kConvolution:
      return "convolution";
    case StepPart::kRecurrence:
      return "recurrence";
    case StepPart::kAttention:
      return "attention";
    case StepPart::kGate:
      return "gate";
    case StepPart::kRoutedExperts:
      return "routed_experts";
    case StepPart::kSharedExpert:
      return "shared_expert";
    case StepPart::kDispatch:
      return "dispatch";
    case StepPart::kLmHead:
      return "lm_head";
    case StepPart::kSampling:
      return "sampling";
  }
  return "";
}

void StepTimer::Move(StepPart from, StepPart to, absl::Duration time) {
  Enter(part_);  // so that the sums are up to date
  double& source = seconds_[static_cast<int>(from)];
  const double moved = std::clamp(absl::ToDoubleSeconds(time), 0.0, source);
  source -= moved;
  seconds_[static_cast<int>(to)] += moved;
}

}  // namespace switchyard::attention_worker
