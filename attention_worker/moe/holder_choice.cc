#include "attention_worker/moe/holder_choice.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// What one more call costs: encoding, a system call, accepting its outputs.
constexpr double kCallSeconds = 40e-6;
// Measured times are not more exact than that.
constexpr double kRelativeNoise = 0.1;
constexpr double kNoiseSeconds = 10e-6;
// Of a holder that has not answered for so long nothing is known but what its
// peers take: it is tried again.
constexpr absl::Duration kStale = absl::Seconds(1);
// As long as nobody has answered anything.
constexpr double kFirstSeconds = 200e-6;
constexpr double kFirstSecondsAPair = 20e-6;

// SplitMix64's finisher.
uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t Rank(const Holder& holder, int layer, int expert) {
  return Mix(holder.name_hash ^ Mix((static_cast<uint64_t>(layer) << 32) +
                                    static_cast<uint64_t>(expert)));
}

bool Excepts(const ExpertRows& rows, const Holder* holder) {
  return std::find(rows.except.begin(), rows.except.end(), holder) !=
         rows.except.end();
}

int TierOf(const Holder& holder) {
  switch (holder.health.state()) {
    case HolderState::kLive:
      return holder.is_fallback ? 1 : 0;
    case HolderState::kJoining:
    case HolderState::kEjected:
      return 2;
    case HolderState::kDistrusted:
    case HolderState::kDisputed:
      break;
  }
  return -1;
}

}  // namespace

void HolderChoice::Begin(int layer, absl::Time now, Who who) {
  layer_ = layer;
  now_ = now;
  usable_.clear();
  const int last_tier = who == Who::kAnyone ? 2 : 0;
  const auto consider = [&](Holder* holder) {
    holder->draft = -1;
    holder->tier = TierOf(*holder);
    if (holder->tier < 0 || holder->tier > last_tier || !holder->reachable ||
        now < holder->avoid_until) {
      return;
    }
    holder->planned_pairs = holder->Load();
    holder->overdue_seconds = 0;
    for (const Holder::Unanswered& call : holder->unanswered) {
      // It hangs: what it is sent will wait with what it has.
      if (call.given_up) return;
      // What it should have done by now it will hardly do at once.
      const absl::Duration overdue =
          now - call.sent -
          (holder->latency.known() ? 2 * holder->latency.Typical(call.load)
                                   : absl::Seconds(kFirstSeconds));
      holder->overdue_seconds =
          std::max(holder->overdue_seconds, absl::ToDoubleSeconds(overdue));
    }
    usable_.push_back(holder);
  };
  for (const auto& holder : table_.present()) consider(holder.get());
  if (table_.fallback() != nullptr) consider(table_.fallback());
}

void HolderChoice::Collect(const ExpertRows& rows) {
  candidates_.clear();
  int best = std::numeric_limits<int>::max();
  for (Holder* const holder : usable_) {
    if (holder->tier > best || Excepts(rows, holder) ||
        !holder->Has(layer_, rows.expert)) {
      continue;
    }
    if (holder->tier < best) candidates_.clear();
    best = holder->tier;
    candidates_.push_back(holder);
  }
}

double HolderChoice::Completion(Holder& holder, int64_t pairs) const {
  const int64_t all = holder.planned_pairs + pairs;
  double seconds =
      kFirstSeconds + kFirstSecondsAPair * static_cast<double>(all);
  const bool stale = now_ - holder.last_answer > kStale;
  const bool known = holder.latency.known();
  if (known) seconds = absl::ToDoubleSeconds(holder.latency.Typical(all));
  if (!known || stale) {
    const absl::Duration peers = table_.PeersTake(holder, all);
    if (peers != absl::InfiniteDuration()) {
      const double like_peers = absl::ToDoubleSeconds(peers);
      seconds = known ? std::min(seconds, like_peers) : like_peers;
    }
  }
  return seconds + holder.overdue_seconds +
         (holder.planned_pairs == 0 ? kCallSeconds : 0);
}

Holder* HolderChoice::Best(const ExpertRows& rows) const {
  double best = std::numeric_limits<double>::infinity();
  for (Holder* const holder : candidates_) {
    best = std::min(best, Completion(*holder, rows.pairs));
  }
  const double about = best * (1 + kRelativeNoise) + kNoiseSeconds;
  Holder* chosen = nullptr;
  bool chosen_has_rows = false;
  uint64_t chosen_rank = 0;
  for (Holder* const holder : candidates_) {
    if (Completion(*holder, rows.pairs) > about) continue;
    const bool has_rows = holder->planned_pairs > 0;
    const uint64_t rank = Rank(*holder, layer_, rows.expert);
    if (chosen == nullptr || has_rows > chosen_has_rows ||
        (has_rows == chosen_has_rows && rank > chosen_rank)) {
      chosen = holder;
      chosen_has_rows = has_rows;
      chosen_rank = rank;
    }
  }
  return chosen;
}

void HolderChoice::Choose(absl::Span<ExpertRows> rows) {
  size_t open = 0;
  for (ExpertRows& some : rows) {
    some.chosen = nullptr;
    Collect(some);
    if (candidates_.empty()) continue;
    if (policy_) {
      indices_.clear();
      for (const Holder* const candidate : candidates_) {
        const auto present = table_.present();
        indices_.push_back(
            static_cast<int>(std::find_if(present.begin(), present.end(),
                                          [candidate](const auto& holder) {
                                            return holder.get() == candidate;
                                          }) -
                             present.begin()));
      }
      const size_t choice = policy_(layer_, some.expert, indices_);
      SY_CHECK(choice < candidates_.size());
      some.chosen = candidates_[choice];
    } else if (candidates_.size() == 1) {
      some.chosen = candidates_[0];
    } else {
      ++open;
      continue;
    }
    some.chosen->planned_pairs += some.pairs;
  }
  if (open == 0) return;
  for (ExpertRows& some : rows) {
    if (some.chosen != nullptr) continue;
    Collect(some);
    if (candidates_.empty()) continue;
    some.chosen = Best(some);
    some.chosen->planned_pairs += some.pairs;
  }
}

bool HolderChoice::AnyoneHas(int layer, const ExpertRows& rows) const {
  const auto has = [&](const Holder* holder) {
    return holder != nullptr && TierOf(*holder) >= 0 &&
           !Excepts(rows, holder) && holder->Has(layer, rows.expert);
  };
  return has(table_.fallback()) ||
         std::any_of(table_.present().begin(), table_.present().end(),
                     [&has](const auto& holder) { return has(holder.get()); });
}

}  // namespace switchyard::attention_worker
