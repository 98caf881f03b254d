// DispatchRun's calls: who gets which pairs, and what becomes of calls that
// should have been answered.

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/str_cat.h"
#include "attention_worker/moe/dispatch_run.h"
#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// When a call was to be hedged and the budget did not allow it.
constexpr absl::Duration kHedgeAgain = absl::Milliseconds(1);

}  // namespace

// ---------------------------------------------------------------------------
// Groups: pairs of one expert that may go to the same holders.

void DispatchRun::BeginGroups() {
  wanting_.clear();
  groups_.clear();
  rows_.clear();
}

void DispatchRun::AddToGroups(int64_t pair, const Holder* not_this) {
  ExpertRows rows;
  rows.expert = pairs_.expert(pair);
  rows.except[0] = not_this;
  const PairTable::State state = pairs_.state(pair);
  // Whoever has answered gives no second opinion.
  if (state == PairTable::State::kHalf) {
    rows.except[1] = calls_[pairs_.answered_by(pair)].holder;
  } else if (state == PairTable::State::kDisputed) {
    const PairTable::Dispute& dispute = pairs_.dispute(pair);
    rows.except[1] = calls_[dispute.calls[0]].holder;
    rows.except[2] = calls_[dispute.calls[1]].holder;
  }
  if (groups_.empty() || groups_.back().state != state ||
      rows_.back().expert != rows.expert ||
      rows_.back().except != rows.except) {
    groups_.push_back(
        {.state = state, .begin = wanting_.size(), .end = wanting_.size()});
    rows_.push_back(rows);
  }
  wanting_.push_back(pair);
  ++groups_.back().end;
  ++rows_.back().pairs;
}

// ---------------------------------------------------------------------------
// Sending.

void DispatchRun::SendWaiting(bool may_compute) {
  if (pairs_.num_wanting() == 0) return;
  BeginGroups();
  for (const int64_t pair : by_expert_) {
    if (pairs_.WantsCall(pair)) AddToGroups(pair, nullptr);
  }
  choice_.Begin(request_.layer, clock_.Now(), HolderChoice::Who::kAnyone);
  choice_.Choose(absl::MakeSpan(rows_));
  const size_t first_call = num_calls_;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const Group& group = groups_[i];
    if (rows_[i].chosen == nullptr ||
        // Who knows when one that is slow or hangs would confirm it.
        (group.state == PairTable::State::kHalf &&
         rows_[i].chosen->health.state() != HolderState::kLive)) {
      LeaveAsTheyAre(rows_[i], group);
    } else if (may_compute || !rows_[i].chosen->client->computes_in_forward()) {
      DraftGroup(rows_[i], group, may_compute);
    }
  }
  SendDrafts(first_call);
}

void DispatchRun::LeaveAsTheyAre(const ExpertRows& rows, const Group& group) {
  if (group.state == PairTable::State::kWaiting) return;
  if (group.state == PairTable::State::kDisputed &&
      choice_.AnyoneHas(request_.layer, rows)) {
    return;
  }
  for (size_t i = group.begin; i < group.end; ++i) {
    const int64_t pair = wanting_[i];
    // A sequence of an earlier pair may have failed just now.
    if (pairs_.state(pair) != group.state) continue;
    if (group.state == PairTable::State::kHalf) {
      metrics_.verified_alone->Increment();
      pairs_.Settle(pair, pairs_.answered_by(pair));
      continue;
    }
    const PairTable::Dispute dispute = pairs_.dispute(pair);
    FailSequence(
        pairs_.sequence(pair),
        absl::DataLossError(absl::StrCat(
            "layer ", request_.layer, ": ",
            calls_[dispute.calls[0]].holder->name, " and ",
            calls_[dispute.calls[1]].holder->name,
            " give different results of expert ", pairs_.expert(pair),
            " for the same row, and nobody else has it: compare their weights "
            "with --verify-checksums, or start with --expert-fallback=local")));
  }
}

bool DispatchRun::WantsVerifying() {
  if (options_.verify_fraction <= 0) return false;
  random_ += 0x9e3779b97f4a7c15;
  uint64_t x = random_;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  x ^= x >> 31;
  return static_cast<double>(x >> 11) * 0x1p-53 < options_.verify_fraction;
}

void DispatchRun::DraftGroup(const ExpertRows& rows, const Group& group,
                             bool may_compute) {
  Holder* second = nullptr;
  if (group.state == PairTable::State::kWaiting && WantsVerifying()) {
    ExpertRows again = rows;
    again.except[0] = rows.chosen;
    choice_.Choose(absl::MakeSpan(&again, 1));
    second = again.chosen;
    if (second == nullptr || second->health.state() != HolderState::kLive) {
      second = nullptr;
      metrics_.verified_alone->Increment(
          static_cast<double>(group.end - group.begin));
    }
  }
  for (size_t i = group.begin; i < group.end; ++i) {
    const int64_t pair = wanting_[i];
    // A sequence may have failed since.
    if (pairs_.state(pair) != group.state) continue;
    if (!Draft(rows.chosen, pair, Kind::kRows) || second == nullptr) continue;
    pairs_.Verify(pair);
    // What computes here is asked when the first answer is there.
    if (may_compute || !second->client->computes_in_forward()) {
      Draft(second, pair, Kind::kRows);
    }
  }
}

bool DispatchRun::Draft(Holder* holder, int64_t pair, Kind kind) {
  const int64_t max_bytes = holder->client->computes_in_forward()
                                ? options_.max_own_call_output_bytes
                                : options_.max_call_output_bytes;
  const int64_t max_pairs = std::max<int64_t>(
      1,
      max_bytes / (request_.hidden_size * static_cast<int64_t>(sizeof(float))));
  // A row counts once in a call, but every pair may bring another one.
  const int64_t limit = std::max<int64_t>(
      1, std::min(max_pairs, holder->client->max_call_rows()));
  if (holder->draft < 0 ||
      static_cast<int64_t>(calls_[holder->draft].pairs.size()) >= limit) {
    if (holder->calls_in_flight >= options_.max_calls_in_flight) return false;
    // What the budget allowed is one call each.
    if (holder->draft >= 0 && kind == Kind::kHedge) return false;
    ++holder->calls_in_flight;
    holder->draft = static_cast<int>(num_calls_);
    if (num_calls_ == calls_.size()) calls_.emplace_back();
    Call& call = calls_[num_calls_++];
    call.holder = holder;
    call.kind = kind;
    call.pairs.clear();
    call.answered = call.given_up = call.ignored = call.useful = false;
  }
  calls_[holder->draft].pairs.push_back(pair);
  return true;
}

void DispatchRun::SendDrafts(size_t first_call) {
  const size_t end = num_calls_;
  for (const bool computing : {false, true}) {
    for (size_t call = first_call; call < end; ++call) {
      if (calls_[call].holder->client->computes_in_forward() == computing) {
        Send(call);
      }
    }
  }
}

void DispatchRun::Send(size_t index) {
  Call& call = calls_[index];
  // Second opinions come after the others of their expert.
  const auto by_expert_and_row = [this](int64_t a, int64_t b) {
    return std::pair(pairs_.expert(a), a) < std::pair(pairs_.expert(b), b);
  };
  if (!std::is_sorted(call.pairs.begin(), call.pairs.end(),
                      by_expert_and_row)) {
    std::sort(call.pairs.begin(), call.pairs.end(), by_expert_and_row);
  }
  for (const int64_t pair : call.pairs) pairs_.Sent(pair);
  const auto num_pairs = static_cast<int64_t>(call.pairs.size());
  call.sent = clock_.Now();
  call.process = call.holder->process;
  call.load = call.holder->Load() + num_pairs;
  call.serial = table_.Sent(call.holder, num_pairs, call.sent);
  WatchCall(&call);
  if (call.kind == Kind::kRows) budget_.CallSent();
  const ReplyInbox::Ticket ticket{.dispatch = number_,
                                  .call = index,
                                  .holder = call.holder->id,
                                  .serial = call.serial};
  call.holder->client->Forward(
      builder_.Build(call.pairs),
      [inbox = inbox_, ticket](absl::StatusOr<ExpertReply> reply) {
        inbox->Deliver(ticket, std::move(reply));
      });
}

// ---------------------------------------------------------------------------
// Calls that take long.

void DispatchRun::WatchCall(Call* call) {
  call->look_at = absl::InfiniteFuture();
  if (table_.present().size() + (table_.fallback() != nullptr ? 1 : 0) < 2) {
    return;  // there is nobody else
  }
  const absl::Duration hang = table_.HangAfter(*call->holder, call->load);
  absl::Duration after = hang;
  if (options_.hedging && call->kind == Kind::kRows) {
    after = std::min(after, table_.HedgeAfter(*call->holder, call->load));
  }
  call->look_at = call->sent + after;
}

void DispatchRun::WatchCallsAgain() {
  for (size_t i = 0; i < num_calls_; ++i) {
    if (IsAwaited(calls_[i])) calls_[i].look_at = absl::InfinitePast();
  }
}

void DispatchRun::LookAfterCalls(absl::Time now) {
  const size_t end = num_calls_;
  for (size_t i = 0; i < end; ++i) {
    if (!IsAwaited(calls_[i]) || now < calls_[i].look_at) continue;
    Holder* const holder = calls_[i].holder;
    const absl::Time hangs_at =
        calls_[i].sent + table_.HangAfter(*holder, calls_[i].load);
    const absl::Time hedge_at =
        calls_[i].sent + table_.HedgeAfter(*holder, calls_[i].load);
    if (holder->client == nullptr || now >= hangs_at) {
      if (holder->client != nullptr) {
        table_.GiveUp(holder, calls_[i].serial, now);
      }
      GiveUp(i);
    } else if (options_.hedging && calls_[i].kind == Kind::kRows &&
               now >= hedge_at) {
      calls_[i].look_at =
          Hedge(i, now) ? hangs_at : std::min(hangs_at, now + kHedgeAgain);
    } else {
      WatchCall(&calls_[i]);
    }
  }
}

// Others are asked for what it has, if there are any; should its answer come
// after all, it counts.
void DispatchRun::GiveUp(size_t index) {
  Call& call = calls_[index];
  call.given_up = true;
  bool resent = false;
  for (const int64_t pair : call.pairs) {
    pairs_.Lost(pair);
    if (pairs_.state(pair) != PairTable::State::kWaiting) continue;
    resent = true;
    metrics_.resent_pairs->Increment();
  }
  if (resent) metrics_.resent_calls->Increment();
}

bool DispatchRun::Hedge(size_t index, absl::Time now) {
  BeginGroups();
  for (const int64_t pair : calls_[index].pairs) {
    const PairTable::State state = pairs_.state(pair);
    const bool open = state == PairTable::State::kInFlight ||
                      state == PairTable::State::kHalf ||
                      state == PairTable::State::kDisputed;
    // Not what is on its way to somebody else already.
    if (open && pairs_.copies(pair) == 1) {
      AddToGroups(pair, calls_[index].holder);
    }
  }
  choice_.Begin(request_.layer, now, HolderChoice::Who::kHealthy);
  choice_.Choose(absl::MakeSpan(rows_));
  others_.clear();
  for (const ExpertRows& rows : rows_) {
    if (rows.chosen != nullptr && std::find(others_.begin(), others_.end(),
                                            rows.chosen) == others_.end()) {
      others_.push_back(rows.chosen);
    }
  }
  if (others_.empty()) return true;
  if (!budget_.Take(static_cast<int>(others_.size())) &&
      !options_.faults.unlimited_hedges) {
    return false;
  }
  const size_t first_call = num_calls_;
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (rows_[i].chosen == nullptr) continue;
    for (size_t p = groups_[i].begin; p < groups_[i].end; ++p) {
      Draft(rows_[i].chosen, wanting_[p], Kind::kHedge);
    }
  }
  SendDrafts(first_call);
  return true;
}

void DispatchRun::LookAfterHolders(absl::Time now) {
  for (const auto& holder : table_.present()) {
    // Unanswered calls change in GiveUp only by a flag.
    for (const Holder::Unanswered& call : holder->unanswered) {
      if (!call.given_up &&
          now - call.sent >= table_.HangAfter(*holder, call.load)) {
        table_.GiveUp(holder.get(), call.serial, now);
      }
    }
  }
}

}  // namespace switchyard::attention_worker
