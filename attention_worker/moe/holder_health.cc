#include "attention_worker/moe/holder_health.h"

#include <algorithm>

namespace switchyard::attention_worker {

absl::string_view HolderStateName(HolderState state) {
  switch (state) {
    case HolderState::kLive:
      return "live";
    case HolderState::kJoining:
      return "joining";
    case HolderState::kEjected:
      return "ejected";
    case HolderState::kDistrusted:
      return "distrusted";
    case HolderState::kDisputed:
      return "disputed";
  }
  return "";
}

void HolderHealth::MakeLive() {
  state_ = HolderState::kLive;
  strikes_ = quick_ = passed_ = 0;
  probe_at_ = absl::InfiniteFuture();
}

bool HolderHealth::Connected(const std::string& instance_id, absl::Time now) {
  const bool same = connected_before_ && instance_id == instance_id_;
  connected_before_ = true;
  instance_id_ = instance_id;
  if (same) return false;
  MakeLive();
  if (options_.join_probes > 0) {
    state_ = HolderState::kJoining;
    probe_at_ = now;
  }
  return true;
}

bool HolderHealth::Answered(absl::Duration latency, absl::Duration peers,
                            absl::Time now) {
  if (state_ != HolderState::kLive) return false;
  if (!IsSlow(latency, peers)) {
    if (strikes_ > 0 && ++quick_ % 2 == 0) --strikes_;
    return false;
  }
  if (++strikes_ < options_.max_strikes) return false;
  Eject(now);
  return true;
}

bool HolderHealth::Hangs(absl::Time now) {
  if (state_ != HolderState::kLive) return false;
  Eject(now);
  return true;
}

void HolderHealth::Eject(absl::Time now) {
  state_ = HolderState::kEjected;
  strikes_ = quick_ = passed_ = 0;
  probe_interval_ = options_.min_probe_interval;
  probe_at_ = now + probe_interval_;
}

void HolderHealth::AnsweredLate(absl::Time now) {
  if (state_ != HolderState::kEjected) return;
  // Not while one is on its way.
  if (probe_at_ != absl::InfiniteFuture()) probe_at_ = std::min(probe_at_, now);
}

bool HolderHealth::Distrust() {
  if (state_ == HolderState::kDistrusted) return false;
  state_ = HolderState::kDistrusted;
  probe_at_ = absl::InfiniteFuture();
  return true;
}

bool HolderHealth::Dispute() {
  if (state_ != HolderState::kJoining) return false;
  state_ = HolderState::kDisputed;
  return true;
}

bool HolderHealth::Settle(absl::Time now) {
  if (state_ != HolderState::kDisputed) return false;
  state_ = HolderState::kJoining;
  passed_ = 0;
  probe_interval_ = options_.min_probe_interval;
  probe_at_ = now;
  return true;
}

bool HolderHealth::ProbePassed(absl::Time now) {
  if (state_ != HolderState::kJoining && state_ != HolderState::kEjected) {
    return false;
  }
  const int needed = state_ == HolderState::kJoining ? options_.join_probes
                                                     : options_.probes_to_pass;
  if (++passed_ >= needed) {
    MakeLive();
    return true;
  }
  probe_at_ = now;  // the next one at once: it is wanted back
  return false;
}

void HolderHealth::ProbeFailed(absl::Time now) {
  if (state_ == HolderState::kLive || state_ == HolderState::kDistrusted) {
    return;
  }
  passed_ = 0;
  probe_interval_ = std::clamp(2 * probe_interval_, options_.min_probe_interval,
                               options_.max_probe_interval);
  probe_at_ = now + probe_interval_;
}

void HolderHealth::SkipJoinProbes() {
  if (state_ == HolderState::kJoining) MakeLive();
}

}  // namespace switchyard::attention_worker
