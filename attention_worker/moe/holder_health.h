// Whether a holder is fit for rows: as a state, and what changes it.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_HEALTH_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_HEALTH_H_

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace switchyard::attention_worker {

enum class HolderState {
  // Gets rows.
  kLive,
  // New: gets probes, and rows only where no live holder is. To kLive once
  // enough probes have the right answers; to kDistrusted with a wrong one, and
  // to kDisputed where nobody knows whose answer is wrong.
  kJoining,
  // Much slower than its peers for a while, or does not answer: gets probes,
  // and rows only where no live holder is. Back to kLive once enough probes are
  // answered as fast as by its peers.
  kEjected,
  // Answered wrongly: gets nothing, until another process is in its place. To
  // kJoining or kLive then.
  kDistrusted,
  // New, and its answer is not that of a holder that gets rows: gets none, and
  // probes whenever somebody else is there who can decide. To kJoining or
  // kDistrusted then (moe/probe_disputes.h).
  kDisputed,
};
inline constexpr int kNumHolderStates = 5;
absl::string_view HolderStateName(HolderState state);

struct HolderHealthOptions {
  // An answer is slow that took longer than `slow_factor` times what the
  // holder's peers take for as much, and `slow_slack`. Ejected after
  // `max_strikes` slow ones; two others make up for a slow one.
  double slow_factor = 4;
  absl::Duration slow_slack = absl::Milliseconds(1);
  int max_strikes = 8;
  // A call without an answer for so long, and for ten times its usual time:
  // the holder hangs.
  absl::Duration hang_timeout = absl::Milliseconds(50);
  double hang_factor = 10;
  // Between probes of an ejected holder: from min to max, doubled with each
  // that fails.
  absl::Duration min_probe_interval = absl::Milliseconds(50);
  absl::Duration max_probe_interval = absl::Seconds(2);
  // In a row, until it is live again.
  int probes_to_pass = 3;
  // Of a holder that joins: probes whose answers must be right (moe/
  // holder_probes.h). 0: it is live at once.
  int join_probes = 0;
};

// A value, without time or network of its own. One thread.
class HolderHealth {
 public:
  explicit HolderHealth(const HolderHealthOptions& options)
      : options_(options) {}

  HolderState state() const { return state_; }
  // Of the process that it is.
  const std::string& instance_id() const { return instance_id_; }

  // It connected, as this process. False, and nothing changes, if it was the
  // same one before.
  bool Connected(const std::string& instance_id, absl::Time now);

  // An answer to a call with rows; its peers take `peers` for as much
  // (infinite: not known). True if it is ejected for it.
  bool Answered(absl::Duration latency, absl::Duration peers, absl::Time now);
  bool IsSlow(absl::Duration latency, absl::Duration peers) const {
    return latency > options_.slow_factor * peers + options_.slow_slack;
  }
  // Some call has had no answer for too long. True if it is ejected for it.
  bool Hangs(absl::Time now);
  // An answer that came after all: worth a probe.
  void AnsweredLate(absl::Time now);
  // It gave a wrong answer. True if that is new.
  bool Distrust();
  // It joins, and nobody can say whether its answer is wrong. True if that is
  // new.
  bool Dispute();
  // No longer so: it joins as if it were new. True if it was disputed.
  bool Settle(absl::Time now);

  bool ProbeDue(absl::Time now) const { return now >= probe_at_; }
  absl::Time probe_at() const { return probe_at_; }
  void ProbeAt(absl::Time time) { probe_at_ = time; }
  void ProbeSent() { probe_at_ = absl::InfiniteFuture(); }
  // Right, and fast if that was asked. True if it is live now.
  bool ProbePassed(absl::Time now);
  void ProbeFailed(absl::Time now);
  // There is nothing to compare its answers with.
  void SkipJoinProbes();

 private:
  void Eject(absl::Time now);
  void MakeLive();

  HolderHealthOptions options_;
  HolderState state_ = HolderState::kLive;
  std::string instance_id_;
  bool connected_before_ = false;
  int strikes_ = 0;
  int quick_ = 0;  // answers that were not slow, since a strike was taken back
  int passed_ = 0;
  absl::Time probe_at_ = absl::InfiniteFuture();
  absl::Duration probe_interval_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_HEALTH_H_
