#include "attention_worker/moe/expert_dispatcher.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "attention_worker/moe/reply_inbox.h"
#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// Holders named in one error text; more are counted only.
constexpr size_t kMaxHoldersInText = 8;

bool Holds(const model::ExpertSet& set, int layer, int expert) {
  return layer < set.num_layers() && expert < set.num_experts() &&
         set.Contains(layer, expert);
}

// Whether the same rows may succeed later or elsewhere.
bool WorthSendingAgain(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kResourceExhausted:
    // The call's deadline is its last sequence's, which is checked here anyway.
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kCancelled:
    case absl::StatusCode::kAborted:
      return true;
    default:
      return false;
  }
}

// What the dispatcher knows of one client, kept from one dispatch to the next.
struct Holder {
  ExpertClient* client = nullptr;
  model::ExpertSet holdings;  // as of the last HoldingsChanged
  // Gets nothing before this, after a failed call.
  absl::Time avoid_until = absl::InfinitePast();
  absl::Duration backoff;
  absl::Status last_error;
};

struct Metrics {
  metrics::Histogram* seconds;
  metrics::Counter* pairs;
  metrics::Counter* resent_pairs;
  metrics::Counter* failed_sequences;
  metrics::Counter* late_replies;
};

Metrics MakeMetrics(metrics::Registry* registry) {
  return {
      .seconds = registry->AddHistogram(
          "switchyard_moe_dispatch_seconds",
          "Time of one layer-step's dispatch, the shared expert included.",
          metrics::ShortSecondsBuckets()),
      .pairs = registry->AddCounter("switchyard_moe_dispatched_pairs_total",
                                    "(row, expert) pairs dispatched."),
      .resent_pairs = registry->AddCounter(
          "switchyard_moe_resent_pairs_total",
          "(row, expert) pairs sent again after a holder failed."),
      .failed_sequences = registry->AddCounter(
          "switchyard_moe_failed_sequences_total",
          "Sequences failed in a dispatch: experts without a holder."),
      .late_replies = registry->AddCounter(
          "switchyard_moe_late_replies_total",
          "Replies that came after their dispatch had ended; dropped."),
  };
}

// One dispatch, on the caller's thread.
//
// A pair is kWaiting -> kInFlight -> kDone; back to kWaiting when its call
// failed; kFailed, from either, with its sequence. It is in one call at a time,
// so its output is written once.
class Run {
 public:
  Run(const ExpertDispatcherOptions& options, const Metrics& metrics,
      std::shared_ptr<ReplyInbox> inbox, std::vector<Holder>* holders,
      const DispatchRequest& request);

  DispatchResult Execute(absl::FunctionRef<void()> overlap);

 private:
  enum class PairState : uint8_t { kWaiting, kInFlight, kDone, kFailed };
  struct Call {
    size_t holder = 0;
    std::vector<int64_t> pairs;  // in the order of the reply's rows
  };
  // Pairs on their way into one call.
  struct Draft {
    size_t holder = 0;
    std::vector<int64_t> pairs;  // by expert, then by row
  };

  void SortPairsByExpert();
  // Sends what waits and has a holder; clients that compute in Forward only if
  // `computing`, all others only if not.
  void SendWaiting(bool computing);
  std::vector<int> HoldersOf(int expert, bool computing, absl::Time now) const;
  void Send(Draft draft);
  ExpertCall MakeCall(const Draft& draft);
  void Apply(ReplyInbox::News news);
  void Accept(const Call& call, const ExpertReply& reply);
  void Refuse(const Call& call, absl::Status error);
  void ExpireSequences(absl::Time now);
  void FailSequence(size_t sequence, absl::Status status);
  absl::Status DeadlineError(size_t sequence) const;
  absl::Time NextEvent(absl::Time now) const;

  int64_t RowOf(int64_t pair) const { return pair / request_.experts_per_row; }
  size_t SequenceOf(int64_t pair) const {
    return static_cast<size_t>(request_.sequence_of_row[RowOf(pair)]);
  }

  const ExpertDispatcherOptions& options_;
  const Metrics& metrics_;
  const std::shared_ptr<ReplyInbox> inbox_;
  std::vector<Holder>& holders_;
  const DispatchRequest& request_;
  const uint64_t number_;  // of this dispatch, in the inbox

  DispatchResult result_;
  std::vector<PairState> pairs_;     // [T * K]
  std::vector<int64_t> by_expert_;   // all pairs, by expert, then by row
  std::vector<int64_t> unfinished_;  // [S] pairs of each sequence
  int64_t num_unfinished_ = 0;
  int64_t num_waiting_ = 0;
  std::vector<Call> calls_;
  std::vector<int> calls_in_flight_;          // [holders]
  std::vector<absl::Duration> compute_time_;  // [holders]
  std::vector<int32_t> slot_of_row_;  // [T], scratch of MakeCall; -1 between
};

Run::Run(const ExpertDispatcherOptions& options, const Metrics& metrics,
         std::shared_ptr<ReplyInbox> inbox, std::vector<Holder>* holders,
         const DispatchRequest& request)
    : options_(options),
      metrics_(metrics),
      inbox_(std::move(inbox)),
      holders_(*holders),
      request_(request),
      number_(inbox_->Open()) {
  const int64_t num_pairs = request.num_rows * request.experts_per_row;
  SY_CHECK(request.num_rows >= 0 && request.experts_per_row > 0 &&
           request.hidden_size > 0);
  SY_CHECK(static_cast<int64_t>(request.rows.size()) ==
           request.num_rows * request.hidden_size);
  SY_CHECK(static_cast<int64_t>(request.experts.size()) == num_pairs);
  SY_CHECK(static_cast<int64_t>(request.sequence_of_row.size()) ==
           request.num_rows);
  result_.outputs.resize(static_cast<size_t>(num_pairs * request.hidden_size));
  result_.sequence_status.resize(request.deadlines.size());
  pairs_.assign(static_cast<size_t>(num_pairs), PairState::kWaiting);
  unfinished_.assign(request.deadlines.size(), 0);
  for (const int32_t sequence : request.sequence_of_row) {
    SY_CHECK(sequence >= 0 &&
             static_cast<size_t>(sequence) < request.deadlines.size());
    unfinished_[sequence] += request.experts_per_row;
  }
  num_unfinished_ = num_waiting_ = num_pairs;
  calls_in_flight_.assign(holders_.size(), 0);
  compute_time_.assign(holders_.size(), absl::ZeroDuration());
  slot_of_row_.assign(static_cast<size_t>(request.num_rows), -1);
  metrics_.pairs->Increment(static_cast<double>(num_pairs));
  SortPairsByExpert();
}

void Run::SortPairsByExpert() {
  const int num_experts = options_.required.num_experts();
  std::vector<int64_t> begin(static_cast<size_t>(num_experts) + 1, 0);
  for (const int32_t expert : request_.experts) {
    SY_CHECK(expert >= 0 && expert < num_experts);
    ++begin[expert + 1];
  }
  for (int e = 0; e < num_experts; ++e) begin[e + 1] += begin[e];
  by_expert_.resize(pairs_.size());
  for (size_t pair = 0; pair < pairs_.size(); ++pair) {
    by_expert_[begin[request_.experts[pair]]++] = static_cast<int64_t>(pair);
  }
}

DispatchResult Run::Execute(absl::FunctionRef<void()> overlap) {
  Apply(inbox_->Take(absl::InfinitePast(), nullptr));
  ExpireSequences(absl::Now());
  SendWaiting(/*computing=*/false);
  overlap();
  while (true) {
    // What came in meanwhile is applied first: replies make room for more
    // calls, which then travel while this process computes.
    Apply(inbox_->Take(absl::InfinitePast(), nullptr));
    ExpireSequences(absl::Now());
    SendWaiting(/*computing=*/false);
    SendWaiting(/*computing=*/true);
    if (num_unfinished_ == 0) break;
    Apply(inbox_->Take(NextEvent(absl::Now()), options_.pool));
  }
  inbox_->Close();
  return std::move(result_);
}

std::vector<int> Run::HoldersOf(int expert, bool computing,
                                absl::Time now) const {
  std::vector<int> found;
  for (size_t i = 0; i < holders_.size(); ++i) {
    const Holder& holder = holders_[i];
    if (now >= holder.avoid_until &&
        Holds(holder.holdings, request_.layer, expert)) {
      found.push_back(static_cast<int>(i));
    }
  }
  if (found.empty()) return found;
  // The choice is made among all, so that it is the same in both passes.
  const size_t choice = options_.policy(request_.layer, expert, found);
  SY_CHECK(choice < found.size());
  const int chosen = found[choice];
  if (holders_[chosen].client->computes_in_forward() != computing) return {};
  return {chosen};
}

void Run::SendWaiting(bool computing) {
  if (num_waiting_ == 0) return;
  const absl::Time now = absl::Now();
  const int64_t max_pairs = std::max<int64_t>(
      1, options_.max_call_output_bytes /
             (request_.hidden_size * static_cast<int64_t>(sizeof(float))));
  std::vector<Draft> drafts;
  std::vector<int> draft_of(holders_.size(), -1);
  std::vector<int> room(holders_.size());
  for (size_t i = 0; i < holders_.size(); ++i) {
    room[i] = options_.max_calls_in_flight - calls_in_flight_[i];
  }
  int32_t expert = -1;
  int chosen = -1;
  for (const int64_t pair : by_expert_) {
    if (pairs_[pair] != PairState::kWaiting) continue;
    if (request_.experts[pair] != expert) {
      expert = request_.experts[pair];
      const std::vector<int> holder = HoldersOf(expert, computing, now);
      chosen = holder.empty() ? -1 : holder.front();
    }
    if (chosen < 0) continue;
    // A row counts once in a call, but every pair may bring another one.
    const int64_t limit = std::max<int64_t>(
        1, std::min(max_pairs, holders_[chosen].client->max_call_rows()));
    int& draft = draft_of[chosen];
    if (draft < 0 ||
        static_cast<int64_t>(drafts[draft].pairs.size()) >= limit) {
      if (room[chosen] == 0) continue;  // waits for a reply
      --room[chosen];
      draft = static_cast<int>(drafts.size());
      drafts.push_back({static_cast<size_t>(chosen), {}});
    }
    drafts[draft].pairs.push_back(pair);
  }
  for (Draft& draft : drafts) Send(std::move(draft));
}

ExpertCall Run::MakeCall(const Draft& draft) {
  ExpertCall call;
  call.layer = request_.layer;
  call.deadline = absl::InfinitePast();
  // Each distinct row once, ascending, so that runs are ascending too.
  std::vector<int64_t> rows;
  for (const int64_t pair : draft.pairs) {
    int32_t& slot = slot_of_row_[RowOf(pair)];
    if (slot >= 0) continue;
    slot = 0;
    rows.push_back(RowOf(pair));
    call.deadline =
        std::max(call.deadline, request_.deadlines[SequenceOf(pair)]);
  }
  std::sort(rows.begin(), rows.end());
  call.num_rows = static_cast<int64_t>(rows.size());
  call.rows.reserve(rows.size() * static_cast<size_t>(request_.hidden_size));
  for (size_t i = 0; i < rows.size(); ++i) {
    slot_of_row_[rows[i]] = static_cast<int32_t>(i);
    const float* row = &request_.rows[rows[i] * request_.hidden_size];
    call.rows.insert(call.rows.end(), row, row + request_.hidden_size);
  }
  for (const int64_t pair : draft.pairs) {
    const int expert = request_.experts[pair];
    if (call.runs.empty() || call.runs.back().expert != expert) {
      call.runs.push_back({expert, {}});
    }
    call.runs.back().rows.push_back(slot_of_row_[RowOf(pair)]);
  }
  for (const int64_t row : rows) slot_of_row_[row] = -1;
  return call;
}

void Run::Send(Draft draft) {
  ExpertCall call = MakeCall(draft);
  for (const int64_t pair : draft.pairs) pairs_[pair] = PairState::kInFlight;
  num_waiting_ -= static_cast<int64_t>(draft.pairs.size());
  ++calls_in_flight_[draft.holder];
  const size_t index = calls_.size();
  ExpertClient* const client = holders_[draft.holder].client;
  calls_.push_back({draft.holder, std::move(draft.pairs)});
  client->Forward(std::move(call), [inbox = inbox_, number = number_,
                                    index](absl::StatusOr<ExpertReply> reply) {
    inbox->Deliver(number, index, std::move(reply));
  });
}

void Run::Apply(ReplyInbox::News news) {
  for (ReplyInbox::Arrival& arrival : news.arrivals) {
    Call& call = calls_[arrival.call];
    --calls_in_flight_[call.holder];
    if (arrival.reply.ok()) {
      Accept(call, *arrival.reply);
    } else {
      Refuse(call, arrival.reply.status());
    }
    call.pairs = {};  // frees them
  }
  // After the replies: a holder that failed a call and then came back is no
  // longer to be avoided.
  for (size_t i = 0; i < holders_.size(); ++i) {
    if (!news.changed[i]) continue;
    holders_[i].holdings = holders_[i].client->holdings();
    holders_[i].avoid_until = absl::InfinitePast();
  }
}

void Run::Accept(const Call& call, const ExpertReply& reply) {
  const int64_t hidden = request_.hidden_size;
  // Clients check their peers' sizes; this is a promise of our own.
  SY_CHECK(reply.outputs.size() ==
           call.pairs.size() * static_cast<size_t>(hidden));
  Holder& holder = holders_[call.holder];
  holder.backoff = options_.min_backoff;
  compute_time_[call.holder] += reply.compute_time;
  result_.compute_time =
      std::max(result_.compute_time, compute_time_[call.holder]);
  for (size_t i = 0; i < call.pairs.size(); ++i) {
    const int64_t pair = call.pairs[i];
    if (pairs_[pair] == PairState::kFailed) continue;
    SY_CHECK(pairs_[pair] == PairState::kInFlight);
    pairs_[pair] = PairState::kDone;
    std::copy_n(&reply.outputs[i * static_cast<size_t>(hidden)], hidden,
                &result_.outputs[pair * hidden]);
    --unfinished_[SequenceOf(pair)];
    --num_unfinished_;
  }
}

void Run::Refuse(const Call& call, absl::Status error) {
  Holder& holder = holders_[call.holder];
  holder.avoid_until = absl::Now() + holder.backoff;
  holder.backoff = std::min(holder.backoff * 2, options_.max_backoff);
  holder.last_error = error;
  const bool again = WorthSendingAgain(error.code());
  for (const int64_t pair : call.pairs) {
    if (pairs_[pair] != PairState::kInFlight) continue;
    if (again) {
      pairs_[pair] = PairState::kWaiting;
      ++num_waiting_;
      metrics_.resent_pairs->Increment();
      continue;
    }
    FailSequence(
        SequenceOf(pair),
        absl::Status(error.code(), absl::StrCat("layer ", request_.layer, ": ",
                                                holder.client->name(), ": ",
                                                error.message())));
  }
}

void Run::ExpireSequences(absl::Time now) {
  for (size_t s = 0; s < unfinished_.size(); ++s) {
    if (unfinished_[s] > 0 && now >= request_.deadlines[s]) {
      FailSequence(s, DeadlineError(s));
    }
  }
}

void Run::FailSequence(size_t sequence, absl::Status status) {
  for (int64_t pair = 0; pair < static_cast<int64_t>(pairs_.size()); ++pair) {
    PairState& state = pairs_[pair];
    if (SequenceOf(pair) != sequence || state == PairState::kDone) continue;
    if (state == PairState::kWaiting) --num_waiting_;
    state = PairState::kFailed;
  }
  num_unfinished_ -= unfinished_[sequence];
  unfinished_[sequence] = 0;
  result_.sequence_status[sequence] = std::move(status);
  metrics_.failed_sequences->Increment();
}

absl::Status Run::DeadlineError(size_t sequence) const {
  std::set<int> missing;
  std::set<int> unanswered;
  for (size_t pair = 0; pair < pairs_.size(); ++pair) {
    if (SequenceOf(static_cast<int64_t>(pair)) != sequence) continue;
    const int expert = request_.experts[pair];
    if (pairs_[pair] == PairState::kWaiting) missing.insert(expert);
    if (pairs_[pair] == PairState::kInFlight) unanswered.insert(expert);
  }
  std::vector<std::string> parts;
  const auto add = [&parts](const char* what, const std::set<int>& experts) {
    if (experts.empty()) return;
    parts.push_back(absl::StrCat(
        what, model::FormatExpertList({experts.begin(), experts.end()})));
  };
  add("no reachable holder of experts ", missing);
  add("no answer yet from the holders of experts ", unanswered);

  std::vector<std::string> holders;
  size_t not_named = 0;
  for (size_t i = 0; i < holders_.size(); ++i) {
    absl::Status why = holders_[i].client->health();
    if (why.ok() && absl::Now() < holders_[i].avoid_until) {
      why = holders_[i].last_error;
    }
    if (why.ok() && calls_in_flight_[i] == 0) continue;
    if (holders.size() == kMaxHoldersInText) {
      ++not_named;
      continue;
    }
    holders.push_back(absl::StrCat(
        holders_[i].client->name(), ": ",
        why.ok() ? "has not answered" : std::string(why.message())));
  }
  if (not_named > 0) holders.push_back(absl::StrCat(not_named, " more"));
  return absl::DeadlineExceededError(absl::StrCat(
      "layer ", request_.layer, ": the deadline came with ",
      absl::StrJoin(parts, " and "),
      holders.empty() ? ""
                      : absl::StrCat(" (", absl::StrJoin(holders, "; "), ")")));
}

absl::Time Run::NextEvent(absl::Time now) const {
  absl::Time next = absl::InfiniteFuture();
  for (size_t s = 0; s < unfinished_.size(); ++s) {
    if (unfinished_[s] > 0) next = std::min(next, request_.deadlines[s]);
  }
  if (num_waiting_ == 0) return next;
  for (const Holder& holder : holders_) {
    if (holder.avoid_until > now) next = std::min(next, holder.avoid_until);
  }
  return next;
}

class Dispatcher final : public ExpertDispatcher {
 public:
  explicit Dispatcher(ExpertDispatcherOptions options)
      : options_(std::move(options)),
        metrics_(MakeMetrics(options_.registry)),
        inbox_(std::make_shared<ReplyInbox>(options_.clients.size(),
                                            metrics_.late_replies)) {
    SY_CHECK(!options_.clients.empty());
    for (size_t i = 0; i < options_.clients.size(); ++i) {
      Holder holder;
      holder.client = options_.clients[i];
      holder.backoff = options_.min_backoff;
      holders_.push_back(std::move(holder));
      options_.clients[i]->SetListener(
          [inbox = inbox_, i] { inbox->HoldingsChanged(i); });
    }
  }

  DispatchResult Dispatch(const DispatchRequest& request,
                          absl::FunctionRef<void()> overlap) override {
    const absl::Time start = absl::Now();
    DispatchResult result =
        Run(options_, metrics_, inbox_, &holders_, request).Execute(overlap);
    metrics_.seconds->Observe(absl::ToDoubleSeconds(absl::Now() - start));
    return result;
  }

  model::ExpertSet MissingExperts() const override {
    model::ExpertSet missing = options_.required;
    for (const ExpertClient* client : options_.clients) {
      const model::ExpertSet held = client->holdings();
      for (int layer = 0; layer < held.num_layers(); ++layer) {
        for (int expert = 0; expert < held.num_experts(); ++expert) {
          if (held.Contains(layer, expert) && Holds(missing, layer, expert)) {
            missing.Erase(layer, expert);
          }
        }
      }
    }
    return missing;
  }

 private:
  const ExpertDispatcherOptions options_;
  const Metrics metrics_;
  const std::shared_ptr<ReplyInbox> inbox_;
  std::vector<Holder> holders_;  // of the dispatching thread
};

}  // namespace

size_t FirstHolder(int layer, int expert, absl::Span<const int> holders) {
  return 0;
}

std::unique_ptr<ExpertDispatcher> NewExpertDispatcher(
    ExpertDispatcherOptions options) {
  return std::make_unique<Dispatcher>(std::move(options));
}

}  // namespace switchyard::attention_worker
