#include "attention_worker/moe/holder_probes.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention_worker/moe/encoded_rows.h"
#include "attention_worker/moe/expert_client.h"
#include "base/log.h"

namespace switchyard::attention_worker {
namespace {

// Answers found right that are remembered.
constexpr size_t kMaxKnown = 256;
constexpr size_t kMaxIdleBytes = size_t{1} << 20;
// Experts looked at for one that somebody else has, too.
constexpr int kTries = 8;

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

HolderProbes::HolderProbes(const Options& options, HolderTable* table,
                           const DispatchMetrics* metrics,
                           std::shared_ptr<ReplyInbox> inbox)
    : options_(options),
      table_(*table),
      metrics_(*metrics),
      inbox_(std::move(inbox)),
      buffers_(BufferPool::Create(kMaxIdleBytes)) {}

void HolderProbes::Send(int layer, int64_t hidden_size, absl::Time now) {
  if (!trials_.empty()) GiveUp(now);
  if (disputes_.Keep([this](const ProbeDisputes::Voter& voter) {
        const Holder* const holder = Find(voter);
        return holder != nullptr && holder->client != nullptr;
      })) {
    Settle(now);
  }
  for (const auto& holder : table_.present()) {
    if (!holder->health.ProbeDue(now) || !holder->reachable ||
        now < holder->avoid_until) {
      continue;
    }
    SendTo(holder.get(), layer, hidden_size, now);
  }
}

void HolderProbes::GiveUp(absl::Time now) {
  for (size_t i = 0; i < trials_.size();) {
    if (now - trials_[i].sent < options_.timeout) {
      ++i;
      continue;
    }
    if (Holder* const holder = table_.Find(trials_[i].subject.holder)) {
      holder->health.ProbeFailed(now);
      holder->metrics.probes_failed->Increment();
    }
    trials_.erase(trials_.begin() + static_cast<int64_t>(i));
  }
}

bool HolderProbes::PickExpert(const Holder& holder, int layer, uint64_t i,
                              Key* key) {
  const model::ExpertSet& held = holder.holdings;
  const int experts = held.num_experts();
  // From somewhere on, around; in the step's layer first, where the others'
  // answers are as warm as this one's.
  const int first_expert =
      static_cast<int>(Mix(i) % static_cast<uint64_t>(experts));
  for (int l = 0; l < held.num_layers(); ++l) {
    const int at = (layer + l) % held.num_layers();
    for (int e = 0; e < experts; ++e) {
      const int expert = (first_expert + e) % experts;
      if (!held.Contains(at, expert)) continue;
      *key = {at, expert};
      return true;
    }
  }
  return false;
}

Holder* HolderProbes::Referee(const Holder& subject, const Key& key,
                              absl::Time now) const {
  Holder* const fallback = table_.fallback();
  if (fallback != nullptr && fallback->Has(key.first, key.second)) {
    return fallback;
  }
  return Peer(subject, key, now, /*may_have_voted=*/true);
}

Holder* HolderProbes::Peer(const Holder& subject, const Key& key,
                           absl::Time now, bool may_have_voted) const {
  for (const auto& holder : table_.present()) {
    if (holder.get() != &subject && holder->reachable &&
        now >= holder->avoid_until &&
        holder->health.state() == HolderState::kLive &&
        holder->Has(key.first, key.second) &&
        (may_have_voted || !disputes_.HasVoted(key, holder->id))) {
      return holder.get();
    }
  }
  return nullptr;
}

bool HolderProbes::PickDisputed(const Holder& holder, absl::Time now, Key* key,
                                Holder** referee) const {
  for (const Key& disputed : disputes_.keys()) {
    if (!holder.Has(disputed.first, disputed.second)) continue;
    // Somebody new, or what this one says is new.
    *referee = Peer(holder, disputed, now, /*may_have_voted=*/false);
    if (*referee == nullptr && !disputes_.HasVoted(disputed, holder.id)) {
      *referee = Peer(holder, disputed, now, /*may_have_voted=*/true);
    }
    if (*referee != nullptr) {
      *key = disputed;
      return true;
    }
  }
  return false;
}

void HolderProbes::SendTo(Holder* holder, int layer, int64_t hidden_size,
                          absl::Time now) {
  const bool disputed = holder->health.state() == HolderState::kDisputed;
  const bool joins =
      disputed || holder->health.state() == HolderState::kJoining;
  Trial trial;
  trial.number = next_number_++;
  trial.subject = {.holder = holder->id, .process = holder->process};
  trial.sent = now;
  Holder* referee = nullptr;
  if (joins) PickDisputed(*holder, now, &trial.key, &referee);
  if (disputed && referee == nullptr) {
    holder->health.ProbeFailed(now);  // nobody new: later
    return;
  }
  for (int i = 0; i < kTries && referee == nullptr && !trial.compares; ++i) {
    if (!PickExpert(*holder, layer, trial.number * kTries + i, &trial.key)) {
      return;
    }
    const auto known = known_.find(trial.key);
    if (known != known_.end()) {
      trial.right = known->second;
      trial.compares = true;
    } else if (joins) {
      referee = Referee(*holder, trial.key, now);
    } else {
      break;  // how fast it is can be seen by itself
    }
  }
  if (referee != nullptr) {
    trial.compares = true;
    if (!referee->is_fallback) {
      trial.peer = {.holder = referee->id, .process = referee->process};
    }
  }
  if (joins && !trial.compares) {
    holder->health.SkipJoinProbes();
    HolderTable::ShowState(*holder);
    return;
  }
  const Key key = trial.key;
  const uint64_t call = trial.number * 2;
  trials_.push_back(std::move(trial));
  holder->health.ProbeSent();
  Forward(holder, key, call, hidden_size, now);
  if (referee != nullptr) Forward(referee, key, call + 1, hidden_size, now);
}

void HolderProbes::MakeRow(const Key& key, int64_t hidden_size) {
  row_.resize(static_cast<size_t>(hidden_size));
  uint64_t state = Mix((static_cast<uint64_t>(key.first) << 32) +
                       static_cast<uint64_t>(key.second));
  for (float& value : row_) {
    state = Mix(state);
    // In [-1, 1), exact in a float.
    value = static_cast<float>(static_cast<int64_t>(state >> 40) -
                               (int64_t{1} << 23)) /
            static_cast<float>(int64_t{1} << 23);
  }
}

void HolderProbes::Forward(Holder* holder, const Key& key, uint64_t call,
                           int64_t hidden_size, absl::Time now) {
  MakeRow(key, hidden_size);
  const int32_t source_row = 0;
  const experts::ExpertRun run{.expert = key.second, .rows = {0}};
  ExpertCall probe;
  probe.layer = key.first;
  probe.hidden_size = hidden_size;
  probe.num_rows = 1;
  probe.source_rows = absl::MakeConstSpan(&source_row, 1);
  probe.rows = row_;
  probe.runs = absl::MakeConstSpan(&run, 1);
  probe.deadline = now + options_.timeout;
  if (options_.row_format != kernels::RowFormat::kF32) {
    encoded_ =
        buffers_->Take(EncodedRowBytes(options_.row_format, 1, hidden_size));
    const EncodedRows rows = EncodeRowsAs(options_.row_format, row_.data(), 1,
                                          hidden_size, encoded_.data());
    probe.quantized = rows.quantized;
    probe.rounded = rows.rounded;
  }
  const ReplyInbox::Ticket ticket{.dispatch = ReplyInbox::kProbe,
                                  .call = call,
                                  .holder = holder->id,
                                  .serial = table_.Sent(holder, 1, now)};
  holder->client->Forward(
      probe, [inbox = inbox_, ticket](absl::StatusOr<ExpertReply> reply) {
        inbox->Deliver(ticket, std::move(reply));
      });
}

void HolderProbes::Arrived(ReplyInbox::Arrival arrival) {
  const uint64_t number = arrival.ticket.call / 2;
  const bool is_referee = arrival.ticket.call % 2 == 1;
  Holder* const asked = table_.Find(arrival.ticket.holder);
  if (asked != nullptr) {
    table_.Answered(asked, arrival.ticket.serial, arrival.reply.ok(),
                    arrival.arrived, arrival.not_before);
    if (!arrival.reply.ok() && !asked->is_fallback) {
      table_.Failed(asked, arrival.reply.status(), arrival.arrived);
    }
  }
  const auto trial = std::find_if(
      trials_.begin(), trials_.end(),
      [number](const Trial& other) { return other.number == number; });
  if (trial == trials_.end()) return;
  if (!arrival.reply.ok()) {
    if (Holder* const subject = table_.Find(trial->subject.holder)) {
      subject->health.ProbeFailed(arrival.arrived);
      if (!is_referee) subject->metrics.probes_failed->Increment();
    }
    End(number);
    return;
  }
  const absl::Span<const float> outputs =
      arrival.reply->Outputs(buffers_.get());
  std::vector<float>& mine = is_referee ? trial->right : trial->answer;
  mine.assign(outputs.begin(), outputs.end());
  if (!is_referee) trial->latency = arrival.not_before - trial->sent;
  if (trial->answer.empty() || (trial->compares && trial->right.empty())) {
    return;
  }
  Judge(*trial, arrival.arrived);
  End(number);
}

void HolderProbes::Judge(const Trial& trial, absl::Time now) {
  Holder* const holder = Find(trial.subject);
  if (holder == nullptr || holder->health.state() == HolderState::kDistrusted) {
    return;
  }
  if (trial.compares) {
    const bool same = trial.answer.size() == trial.right.size() &&
                      std::memcmp(trial.answer.data(), trial.right.data(),
                                  trial.answer.size() * sizeof(float)) == 0;
    if (!same) metrics_.mismatches->Increment();
    if (trial.peer.has_value() && (!same || disputes_.Contains(trial.key))) {
      if (!Vote(trial, same, now)) return;
    } else if (!same) {
      Wrong(trial.subject);
      return;
    } else if (known_.size() < kMaxKnown) {
      known_.emplace(trial.key, trial.right);
    }
  }
  if (holder->health.state() == HolderState::kDisputed) {
    holder->health.ProbeFailed(now);  // about another row
    return;
  }
  const bool slow =
      holder->health.state() == HolderState::kEjected &&
      holder->health.IsSlow(trial.latency, table_.PeersTake(*holder, 1));
  if (slow) {
    holder->metrics.probes_slow->Increment();
    holder->health.ProbeFailed(now);
    return;
  }
  holder->metrics.probes_right->Increment();
  if (holder->health.ProbePassed(now)) {
    // Of what it was like before nothing is known any more.
    holder->latency = LatencyModel();
    holder->latency.Observe(1, std::max(trial.latency, absl::Microseconds(1)));
    HolderTable::ShowState(*holder);
    LogInfo(absl::StrCat("expert worker ", holder->name, " gets rows"));
  }
}

void HolderProbes::Wrong(const ProbeDisputes::Voter& voter) {
  Holder* const holder = Find(voter);
  if (holder == nullptr) return;
  holder->metrics.probes_wrong->Increment();
  table_.Distrust(holder);
}

bool HolderProbes::Vote(const Trial& trial, bool same, absl::Time now) {
  Holder* const subject = Find(trial.subject);
  const Holder* const peer = Find(*trial.peer);
  // Who has been replaced since decides nothing.
  const bool kept = peer != nullptr &&
                    disputes_.Vote(trial.key, *trial.peer, trial.right) &&
                    disputes_.Vote(trial.key, trial.subject, trial.answer);
  if (!kept) {
    subject->health.ProbeFailed(now);
    return false;
  }
  if (std::optional<ProbeDisputes::Verdict> verdict =
          disputes_.Decide(trial.key)) {
    const bool right = std::none_of(
        verdict->wrong.begin(), verdict->wrong.end(),
        [&](const auto& voter) { return voter.holder == subject->id; });
    for (const ProbeDisputes::Voter& voter : verdict->wrong) Wrong(voter);
    if (known_.size() < kMaxKnown) {
      known_.insert_or_assign(trial.key, std::move(verdict->right));
    }
    Settle(now);
    return right;
  }
  subject->metrics.probes_disputed->Increment();
  if (subject->health.Dispute()) {
    HolderTable::ShowState(*subject);
    LogError(absl::StrCat(
        "expert workers ", subject->name, ", which joins, and ", peer->name,
        same ? " are at odds with a third about" : " give different results of",
        " expert ", trial.key.second, " of layer ", trial.key.first,
        ", and nobody can say whose are WRONG: ", subject->name,
        " gets no rows until another holder of the expert has joined. A third "
        "replica, or --expert-fallback=local, decides at once"));
  }
  subject->health.ProbeFailed(now);
  Key key;
  Holder* referee = nullptr;
  // Somebody who can decide is there already.
  if (subject->health.state() == HolderState::kDisputed &&
      PickDisputed(*subject, now, &key, &referee)) {
    subject->health.ProbeAt(now);
  }
  return false;
}

void HolderProbes::Settle(absl::Time now) {
  for (const auto& holder : table_.present()) {
    if (!disputes_.Concerns(holder->id) && holder->health.Settle(now)) {
      HolderTable::ShowState(*holder);
    }
  }
}

Holder* HolderProbes::Find(const ProbeDisputes::Voter& voter) const {
  Holder* const holder = table_.Find(voter.holder);
  return holder != nullptr && holder->process == voter.process ? holder
                                                               : nullptr;
}

void HolderProbes::End(uint64_t number) {
  trials_.erase(std::remove_if(trials_.begin(), trials_.end(),
                               [number](const Trial& trial) {
                                 return trial.number == number;
                               }),
                trials_.end());
}

}  // namespace switchyard::attention_worker
