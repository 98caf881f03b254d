#include "attention_worker/moe/holder_table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention_worker/moe/expert_client_metrics.h"
#include "base/check.h"
#include "base/log.h"

namespace switchyard::attention_worker {
namespace {

// Names of wrong workers are remembered for so many.
constexpr size_t kMaxDistrusted = 1024;
// A call is sent elsewhere, too, when it takes longer than one in twenty of the
// same holder's calls, with some room, or much longer than others'.
constexpr double kAboveTail = 1.25;
constexpr double kPeersFactor = 4;
// Of a holder of which nothing is known: its weights may have to be read first.
constexpr absl::Duration kFirstAnswer = absl::Milliseconds(500);
constexpr absl::Duration kFirstPair = absl::Milliseconds(5);
// Beyond twice its usual time nobody is waited for longer than this.
constexpr absl::Duration kMaxSlack = absl::Seconds(1);

metrics::Counter* AddEjections(metrics::Registry* registry,
                               const std::string& worker, const char* reason) {
  return registry->AddCounter(
      "switchyard_expert_worker_ejections_total",
      "Times that an expert worker was taken out of use, by reason.",
      {{"worker", worker}, {"reason", reason}});
}

metrics::Counter* AddProbes(metrics::Registry* registry,
                            const std::string& worker, const char* result) {
  return registry->AddCounter(
      "switchyard_expert_worker_probes_total",
      "Probes of expert workers that join or were ejected, by result.",
      {{"worker", worker}, {"result", result}});
}

// FNV-1a: the same in every process.
uint64_t HashName(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return hash;
}

}  // namespace

HolderMetrics::HolderMetrics(metrics::Registry* registry,
                             const std::string& worker)
    : lease(metrics::LeaseSeries(registry, "worker", worker)),
      accept_seconds(AddDispatchPhase(registry, worker, "accept")),
      typical_seconds(registry->AddGauge(
          "switchyard_expert_worker_typical_seconds",
          "Median time of an expert worker's answer to a call of one pair, as "
          "the dispatcher reckons with it.",
          {{"worker", worker}})),
      ejected_slow(AddEjections(registry, worker, "slow")),
      ejected_hung(AddEjections(registry, worker, "hung")),
      ejected_wrong(AddEjections(registry, worker, "wrong")),
      probes_right(AddProbes(registry, worker, "right")),
      probes_slow(AddProbes(registry, worker, "slow")),
      probes_failed(AddProbes(registry, worker, "failed")),
      probes_wrong(AddProbes(registry, worker, "wrong")),
      probes_disputed(AddProbes(registry, worker, "disputed")) {
  for (int i = 0; i < kNumHolderStates; ++i) {
    state[i] = registry->AddGauge(
        "switchyard_expert_worker_state",
        "1 for the state that an expert worker is in, as this dispatcher sees "
        "it.",
        {{"worker", worker},
         {"state", std::string(HolderStateName(static_cast<HolderState>(i)))}});
  }
}

int64_t Holder::Load() const {
  int64_t load = 0;
  for (const Unanswered& call : unanswered) {
    if (!call.given_up) load += call.pairs;
  }
  return load;
}

HolderTable::HolderTable(const Options& options) : options_(options) {
  if (options.fallback == nullptr) return;
  fallback_ = NewHolder({.id = 0, .client = options.fallback}, nullptr,
                        absl::InfinitePast());
  fallback_->is_fallback = true;
  fallback_->holdings = options.fallback->holdings();
  fallback_->reachable = true;
  fallback_->health.SkipJoinProbes();
  ShowState(*fallback_);
}

std::unique_ptr<Holder> HolderTable::NewHolder(const ClientSet::Member& member,
                                               const Holder* same_name,
                                               absl::Time now) {
  std::string name = member.client->name();
  auto holder = std::make_unique<Holder>(
      options_.health, name,
      same_name != nullptr ? same_name->metrics
                           : HolderMetrics(options_.registry, name));
  holder->id = member.id;
  holder->client = member.client;
  holder->name_hash = HashName(name);
  holder->backoff = options_.min_backoff;
  if (same_name != nullptr) {
    holder->health = same_name->health;
    holder->process = same_name->process;
    holder->latency = same_name->latency;
    holder->last_answer = same_name->last_answer;
    holder->backoff = same_name->backoff;
  }
  return holder;
}

void HolderTable::Change(absl::Span<const ClientSet::Member> members,
                         absl::Time now) {
  std::vector<std::unique_ptr<Holder>> before = std::move(present_);
  present_.clear();
  for (const ClientSet::Member& member : members) {
    const auto same = std::find_if(
        before.begin(), before.end(), [&member](const auto& holder) {
          return holder != nullptr && holder->id == member.id;
        });
    if (same != before.end()) {
      present_.push_back(std::move(*same));
      continue;
    }
    const std::string name = member.client->name();
    const auto named =
        std::find_if(before.begin(), before.end(), [&name](const auto& holder) {
          return holder != nullptr && holder->name == name;
        });
    present_.push_back(
        NewHolder(member, named == before.end() ? nullptr : named->get(), now));
    HoldingsChanged(member.id, now);
  }
  for (std::unique_ptr<Holder>& holder : before) {
    if (holder == nullptr) continue;
    holder->client = nullptr;
    removed_.push_back(std::move(holder));
  }
}

void HolderTable::HoldingsChanged(uint64_t id, absl::Time now) {
  for (const auto& holder : present_) {
    if (holder->id != id) continue;
    holder->holdings = holder->client->holdings();
    holder->reachable = !holder->holdings.empty();
    holder->avoid_until = absl::InfinitePast();
    if (holder->reachable) {
      const std::string instance = holder->client->instance_id();
      if (holder->health.Connected(instance, now)) ++holder->process;
      const auto wrong = distrusted_.find(holder->name);
      if (wrong != distrusted_.end()) {
        if (wrong->second == instance) {
          holder->health.Distrust();
        } else {
          distrusted_.erase(wrong);
        }
      }
    }
    ShowState(*holder);
    return;
  }
}

Holder* HolderTable::Find(uint64_t id) const {
  if (fallback_ != nullptr && fallback_->id == id) return fallback_.get();
  for (const auto* holders : {&present_, &removed_}) {
    for (const auto& holder : *holders) {
      if (holder->id == id) return holder.get();
    }
  }
  return nullptr;
}

absl::Duration HolderTable::PeersTake(const Holder& holder, int64_t pairs) {
  scratch_.clear();
  for (const auto& other : present_) {
    if (other.get() != &holder && other->latency.known() &&
        other->health.state() == HolderState::kLive && other->reachable) {
      scratch_.push_back(other->latency.Typical(pairs));
    }
  }
  if (scratch_.empty()) return absl::InfiniteDuration();
  // Of an even number the lower one: the faster half is what is possible.
  const auto middle =
      scratch_.begin() + static_cast<int64_t>(scratch_.size() - 1) / 2;
  std::nth_element(scratch_.begin(), middle, scratch_.end());
  return *middle;
}

absl::Duration HolderTable::HedgeAfter(const Holder& holder, int64_t load) {
  // A prompt's first large call is not late because small ones were quick: to
  // compute it twice would cost more than to wait.
  if (!holder.latency.Knows(load)) return absl::InfiniteDuration();
  // A holder that is always slow is not its own measure.
  const absl::Duration after = std::min(
      holder.latency.Typical(load) * (kAboveTail * holder.latency.tail()),
      kPeersFactor * PeersTake(holder, load));
  return std::max(after, options_.min_hedge_delay);
}

absl::Duration HolderTable::HangAfter(const Holder& holder, int64_t load) {
  const absl::Duration usual = holder.latency.known()
                                   ? holder.latency.Typical(load)
                                   : PeersTake(holder, load);
  if (usual == absl::InfiniteDuration()) {
    return kFirstAnswer + static_cast<double>(load) * kFirstPair;
  }
  // Ten times what takes a second would outlast what waits for it.
  return std::max(
      options_.health.hang_timeout,
      std::min(options_.health.hang_factor * usual, 2 * usual + kMaxSlack));
}

uint64_t HolderTable::Sent(Holder* holder, int64_t pairs, absl::Time now) {
  holder->unanswered.push_back({.serial = next_serial_,
                                .sent = now,
                                .pairs = pairs,
                                .load = holder->Load() + pairs});
  return next_serial_++;
}

void HolderTable::Failed(Holder* holder, const absl::Status& error,
                         absl::Time now) {
  holder->avoid_until = now + holder->backoff;
  holder->backoff = std::min(holder->backoff * 2, options_.max_backoff);
  holder->last_error = error;
}

void HolderTable::Answered(Holder* holder, uint64_t serial, bool ok,
                           absl::Time arrived, absl::Time not_before) {
  const auto call = std::find_if(
      holder->unanswered.begin(), holder->unanswered.end(),
      [serial](const auto& other) { return other.serial == serial; });
  if (call == holder->unanswered.end()) return;
  const Holder::Unanswered answered = *call;
  holder->unanswered.erase(call);
  if (!ok) return;
  // How long it hung says nothing of how long it takes.
  if (!answered.given_up) {
    holder->latency.Observe(answered.load, arrived - answered.sent);
  }
  holder->last_answer = arrived;
  if (holder->latency.known()) {
    holder->metrics.typical_seconds->Set(
        absl::ToDoubleSeconds(holder->latency.Typical(1)));
  }
  if (holder->is_fallback) return;
  holder->backoff = options_.min_backoff;
  if (answered.given_up) holder->health.AnsweredLate(arrived);
  const absl::Duration latency =
      std::max(not_before - answered.sent, absl::ZeroDuration());
  const absl::Duration peers = PeersTake(*holder, answered.load);
  if (holder->health.Answered(latency, peers, arrived)) {
    holder->metrics.ejected_slow->Increment();
    ShowState(*holder);
    LogWarning(absl::StrCat("expert worker ", holder->name, " is slow (",
                            absl::FormatDuration(latency),
                            " where its peers take ",
                            absl::FormatDuration(peers),
                            "): its rows go to others until it has recovered"));
  }
}

void HolderTable::GiveUp(Holder* holder, uint64_t serial, absl::Time now) {
  for (Holder::Unanswered& call : holder->unanswered) {
    if (call.serial == serial) call.given_up = true;
  }
  if (holder->is_fallback || !holder->health.Hangs(now)) return;
  holder->metrics.ejected_hung->Increment();
  ShowState(*holder);
  LogWarning(absl::StrCat("expert worker ", holder->name,
                          " does not answer: its rows go to others"));
}

void HolderTable::Distrust(Holder* holder) {
  if (!holder->health.Distrust()) return;
  holder->metrics.ejected_wrong->Increment();
  ShowState(*holder);
  const std::string& instance = holder->health.instance_id();
  LogError(absl::StrCat(
      "expert worker ", holder->name, " (instance ", instance,
      ") computes WRONG results: it gets nothing until another process is in "
      "its place. Check that machine's memory, and its weights with "
      "--verify-checksums"));
  if (distrusted_.size() < kMaxDistrusted) {
    distrusted_[holder->name] = instance;
  }
}

void HolderTable::ShowState(const Holder& holder) {
  for (int i = 0; i < kNumHolderStates; ++i) {
    holder.metrics.state[i]->Set(
        static_cast<int>(holder.health.state()) == i ? 1 : 0);
  }
}

}  // namespace switchyard::attention_worker
