#include "attention_worker/moe/dispatch_run.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "attention_worker/moe/encoded_rows.h"
#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// Holders named in one error text; more are counted only.
constexpr size_t kMaxHoldersInText = 8;
// Replies' outputs that come in pieces: a long prompt's, 2,048 rows of 10
// experts at H = 2048.
constexpr size_t kMaxIdleBytes = size_t{192} << 20;

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

// Observes the time since it was made, when it goes.
class PartTimer {
 public:
  PartTimer(metrics::Histogram* part, const Clock& clock)
      : part_(part), clock_(clock), start_(clock.Now()) {}
  PartTimer(const PartTimer&) = delete;
  PartTimer& operator=(const PartTimer&) = delete;
  ~PartTimer() { part_->Observe(absl::ToDoubleSeconds(clock_.Now() - start_)); }

 private:
  metrics::Histogram* const part_;
  const Clock& clock_;
  const absl::Time start_;
};

}  // namespace

DispatchRun::DispatchRun(const ExpertDispatcherOptions& options,
                         const DispatchMetrics& metrics, ClientSet* clients,
                         std::shared_ptr<ReplyInbox> inbox)
    : options_(options),
      metrics_(metrics),
      clock_(*options.clock),
      inbox_(std::move(inbox)),
      buffers_(BufferPool::Create(kMaxIdleBytes)),
      clients_(*clients),
      table_({.health = options.health,
              .min_hedge_delay = options.min_hedge_delay,
              .min_backoff = options.min_backoff,
              .max_backoff = options.max_backoff,
              .registry = options.registry,
              .fallback = options.fallback.get()}),
      choice_(&table_, &options.policy),
      probes_(
          {.row_format = options.row_format, .timeout = options.probe_timeout},
          &table_, &metrics, inbox_),
      budget_(options.hedge_share, options.hedge_burst),
      random_(options.seed) {}

void DispatchRun::Begin(const DispatchRequest& request) {
  const int64_t num_pairs = request.num_rows * request.experts_per_row;
  SY_CHECK(request.num_rows >= 0 && request.experts_per_row > 0 &&
           request.hidden_size > 0);
  SY_CHECK(static_cast<int64_t>(request.rows.size()) ==
           request.num_rows * request.hidden_size);
  SY_CHECK(static_cast<int64_t>(request.experts.size()) == num_pairs);
  SY_CHECK(static_cast<int64_t>(request.sequence_of_row.size()) ==
           request.num_rows);
  request_ = request;
  deadlines_.clear();
  const absl::Time now = clock_.Now();
  const absl::Time latest = now + options_.max_wait;
  for (const absl::Time deadline : request.deadlines) {
    deadlines_.push_back(std::min(deadline, latest));
  }
  request_.deadlines = deadlines_;
  number_ = inbox_->Open();
  for (size_t i = 0; i < num_calls_; ++i) calls_[i].reply = ExpertReply();
  num_calls_ = 0;
  table_.ForgetRemoved();
  if (clients_.BeginDispatch(&clients_version_, &members_)) {
    table_.Change(members_, now);
  }
  const auto reset = [](Holder* holder) {
    holder->calls_in_flight = 0;
    holder->compute_time = absl::ZeroDuration();
  };
  for (const auto& holder : table_.present()) reset(holder.get());
  if (table_.fallback() != nullptr) reset(table_.fallback());
  pairs_.Begin(&request_, options_.faults.believe_first_answer);
  builder_.Begin(&request_);
  metrics_.pairs->Increment(static_cast<double>(num_pairs));
  SortPairsByExpert();
}

void DispatchRun::SortPairsByExpert() {
  const int num_experts = options_.required.num_experts();
  begin_.assign(static_cast<size_t>(num_experts) + 1, 0);
  for (const int32_t expert : request_.experts) {
    SY_CHECK(expert >= 0 && expert < num_experts);
    ++begin_[expert + 1];
  }
  for (int e = 0; e < num_experts; ++e) begin_[e + 1] += begin_[e];
  by_expert_.resize(request_.experts.size());
  for (size_t pair = 0; pair < request_.experts.size(); ++pair) {
    by_expert_[begin_[request_.experts[pair]]++] = static_cast<int64_t>(pair);
  }
}

// Once for all holders: what one sender quantises or rounds, every receiver
// multiplies.
void DispatchRun::EncodeRows() {
  const kernels::RowFormat format = options_.row_format;
  if (format == kernels::RowFormat::kF32 ||
      request_.quantized.values != nullptr || request_.rounded != nullptr) {
    return;
  }
  const PartTimer timer(metrics_.quantize_seconds, clock_);
  const size_t bytes =
      EncodedRowBytes(format, request_.num_rows, request_.hidden_size);
  if (encoded_.size() < bytes) encoded_ = buffers_->Take(bytes);
  const EncodedRows rows =
      EncodeRowsAs(format, request_.rows.data(), request_.num_rows,
                   request_.hidden_size, encoded_.data());
  request_.quantized = rows.quantized;
  request_.rounded = rows.rounded;
}

DispatchResult DispatchRun::Execute(const DispatchRequest& request,
                                    absl::FunctionRef<void()> overlap) {
  const PartTimer timer(metrics_.seconds, clock_);
  Begin(request);
  EncodeRows();
  {
    const PartTimer send(metrics_.send_seconds, clock_);
    TakeNews(absl::InfinitePast());
    const absl::Time now = clock_.Now();
    LookAfterHolders(now);
    ExpireSequences(now);
    SendWaiting(/*may_compute=*/false);
    probes_.Send(request_.layer, request_.hidden_size, now);
    // Calls that waited for the ones before them to be written go out, too.
    TakeNews(absl::InfinitePast());
  }
  {
    const PartTimer overlapping(metrics_.overlap_seconds, clock_);
    overlap();
  }
  while (true) {
    // What came in meanwhile is applied first: replies make room for more
    // calls, which then travel while this process computes.
    TakeNews(absl::InfinitePast());
    const absl::Time now = clock_.Now();
    ExpireSequences(now);
    LookAfterCalls(now);
    SendWaiting(/*may_compute=*/true);
    if (pairs_.num_unfinished() == 0) break;
    TakeNews(NextEvent(clock_.Now()));
  }
  return Finish();
}

DispatchResult DispatchRun::Finish() {
  inbox_->Close();
  clients_.EndDispatch();
  for (size_t i = 0; i < num_calls_; ++i) {
    if (calls_[i].kind != Kind::kHedge) continue;
    (calls_[i].useful ? metrics_.hedges_won : metrics_.hedges_lost)
        ->Increment();
  }
  absl::Duration longest;
  const auto consider = [&longest](const Holder& holder) {
    longest = std::max(longest, holder.compute_time);
  };
  for (const auto& holder : table_.present()) consider(*holder);
  for (const auto& holder : table_.removed()) consider(*holder);
  if (table_.fallback() != nullptr) consider(*table_.fallback());
  return {.outputs = pairs_.outputs(),
          .sequence_status = pairs_.sequence_status(),
          .compute_time = longest};
}

void DispatchRun::TakeNews(absl::Time deadline) {
  if (deadline == absl::InfinitePast()) {
    inbox_->Take(deadline, nullptr, &news_);
  } else {
    const PartTimer waiting(metrics_.wait_seconds, clock_);
    inbox_->Take(deadline, options_.pool, &news_);
  }
  for (ReplyInbox::Arrival& arrival : news_.arrivals) {
    Call& call = calls_[arrival.ticket.call];
    Holder* const holder = call.holder;
    --holder->calls_in_flight;
    call.answered = true;
    table_.Answered(holder, call.serial, arrival.reply.ok(), arrival.arrived,
                    arrival.not_before);
    if (arrival.reply.ok()) {
      const PartTimer accepting(holder->metrics.accept_seconds, clock_);
      Accept(arrival.ticket.call, *std::move(arrival.reply));
    } else {
      Refuse(arrival.ticket.call, arrival.reply.status());
    }
  }
  for (const ReplyInbox::Late& late : news_.late) {
    if (Holder* const holder = table_.Find(late.ticket.holder)) {
      table_.Answered(holder, late.ticket.serial, late.ok, late.arrived,
                      late.not_before);
    }
  }
  for (ReplyInbox::Arrival& probe : news_.probes) {
    probes_.Arrived(std::move(probe));
  }
  if (!news_.probes.empty()) VoidDistrusted();
  news_.arrivals.clear();
  news_.probes.clear();
  const absl::Time now = clock_.Now();
  if (news_.clients_changed && clients_.Read(&clients_version_, &members_)) {
    table_.Change(members_, now);
    WatchCallsAgain();
  }
  // After the replies: a holder that failed a call and then came back is no
  // longer to be avoided.
  for (const uint64_t id : news_.changed) {
    if (!options_.faults.ignore_changed_holdings) {
      table_.HoldingsChanged(id, now);
    }
    WatchCallsAgain();
  }
}

void DispatchRun::Accept(size_t index, ExpertReply reply) {
  Call& call = calls_[index];
  const auto hidden = static_cast<size_t>(request_.hidden_size);
  // Clients check their peers' sizes; this is a promise of our own.
  SY_CHECK(reply.num_floats() == call.pairs.size() * hidden);
  call.holder->compute_time += reply.compute_time();
  if (call.ignored) return;
  call.reply = std::move(reply);
  const float* next = call.reply.Outputs(buffers_.get()).data();
  wrong_.clear();
  for (const int64_t pair : call.pairs) {
    if (call.given_up) pairs_.Sent(pair);
    PairTable::Dispute dispute;
    if (pairs_.state(pair) == PairTable::State::kDisputed) {
      dispute = pairs_.dispute(pair);
    }
    switch (pairs_.Answered(pair, static_cast<int32_t>(index), next)) {
      case PairTable::Outcome::kAccepted:
      case PairTable::Outcome::kHalf:
        call.useful = true;
        break;
      case PairTable::Outcome::kAgreed:
        if (pairs_.verified(pair)) metrics_.verified_agreed->Increment();
        break;
      case PairTable::Outcome::kDiffers:
        metrics_.mismatches->Increment();
        if (pairs_.verified(pair)) metrics_.verified_differed->Increment();
        break;
      case PairTable::Outcome::kDecided: {
        const bool first = pairs_.answered_by(pair) == dispute.calls[0];
        wrong_.push_back(static_cast<size_t>(dispute.calls[first ? 1 : 0]));
        break;
      }
      case PairTable::Outcome::kNoneAgree:
        FailSequence(pairs_.sequence(pair),
                     absl::DataLossError(absl::StrCat(
                         "layer ", request_.layer, ": three holders of expert ",
                         pairs_.expert(pair),
                         " give three different results for the same row")));
        break;
      case PairTable::Outcome::kIgnored:
        break;
    }
    next += hidden;
  }
  for (const size_t wrong : wrong_) Distrust(calls_[wrong]);
}

void DispatchRun::Refuse(size_t index, const absl::Status& error) {
  const Call& call = calls_[index];
  Holder& holder = *call.holder;
  table_.Failed(&holder, error, clock_.Now());
  if (call.ignored || call.given_up) return;
  const bool again = WorthSendingAgain(error.code());
  for (const int64_t pair : call.pairs) {
    pairs_.Lost(pair);
    // Another call may carry it, or have brought it.
    if (pairs_.state(pair) != PairTable::State::kWaiting) continue;
    if (again) {
      metrics_.resent_pairs->Increment();
      continue;
    }
    FailSequence(
        pairs_.sequence(pair),
        absl::Status(error.code(),
                     absl::StrCat("layer ", request_.layer, ": ", holder.name,
                                  ": ", error.message())));
  }
}

// A probe may have shown that somebody computes wrongly who has rows.
void DispatchRun::VoidDistrusted() {
  for (size_t i = 0; i < num_calls_; ++i) {
    const Call& call = calls_[i];
    if (!call.ignored && call.holder->process == call.process &&
        call.holder->health.state() == HolderState::kDistrusted) {
      Distrust(call);
    }
  }
}

// What it said in this dispatch is void, as far as nobody else has said it.
void DispatchRun::Distrust(const Call& wrong) {
  Holder* const holder = wrong.holder;
  // Another process in its place has done nothing.
  if (holder->process == wrong.process) table_.Distrust(holder);
  const auto is_void = [&wrong](const Call& call) {
    return call.holder == wrong.holder && call.process == wrong.process;
  };
  for (size_t i = 0; i < num_calls_; ++i) {
    Call& call = calls_[i];
    if (!is_void(call) || call.ignored) continue;
    if (IsAwaited(call)) {
      for (const int64_t pair : call.pairs) pairs_.Lost(pair);
    }
    call.ignored = true;
  }
  for (int64_t pair = 0; pair < pairs_.size(); ++pair) {
    switch (pairs_.state(pair)) {
      case PairTable::State::kHalf:
      case PairTable::State::kDone:
        if (is_void(calls_[pairs_.answered_by(pair)])) {
          pairs_.Forget(pair);
        }
        break;
      case PairTable::State::kDisputed: {
        const PairTable::Dispute dispute = pairs_.dispute(pair);
        for (int side = 0; side < 2; ++side) {
          if (is_void(calls_[dispute.calls[side]])) {
            pairs_.Settle(pair, dispute.calls[1 - side]);
            break;
          }
        }
        break;
      }
      default:
        break;
    }
  }
}

void DispatchRun::ExpireSequences(absl::Time now) {
  for (size_t s = 0; s < pairs_.num_sequences(); ++s) {
    if (pairs_.unfinished(s) > 0 && now >= request_.deadlines[s]) {
      FailSequence(s, DeadlineError(s));
    }
  }
}

void DispatchRun::FailSequence(size_t sequence, absl::Status status) {
  pairs_.FailSequence(sequence, std::move(status));
  metrics_.failed_sequences->Increment();
}

absl::Status DispatchRun::DeadlineError(size_t sequence) const {
  std::set<int> missing;
  std::set<int> unanswered;
  for (int64_t pair = 0; pair < pairs_.size(); ++pair) {
    if (pairs_.sequence(pair) != sequence) continue;
    switch (pairs_.state(pair)) {
      case PairTable::State::kWaiting:
        missing.insert(pairs_.expert(pair));
        break;
      case PairTable::State::kInFlight:
      case PairTable::State::kHalf:
      case PairTable::State::kDisputed:
        unanswered.insert(pairs_.expert(pair));
        break;
      default:
        break;
    }
  }
  std::vector<std::string> parts;
  const auto add = [&parts](const char* what, const std::set<int>& experts) {
    if (experts.empty()) return;
    parts.push_back(absl::StrCat(
        what, model::FormatExpertList({experts.begin(), experts.end()})));
  };
  add("no reachable holder of experts ", missing);
  add("no answer yet from the holders of experts ", unanswered);
  return absl::DeadlineExceededError(
      absl::StrCat("layer ", request_.layer, ": the deadline came with ",
                   absl::StrJoin(parts, " and "), DescribeHolders()));
}

std::string DispatchRun::DescribeHolders() const {
  std::vector<std::string> named;
  size_t not_named = 0;
  const auto describe = [&](const Holder& holder) {
    absl::Status why;
    if (holder.client != nullptr) why = holder.client->health();
    if (why.ok() && clock_.Now() < holder.avoid_until) why = holder.last_error;
    if (why.ok() && holder.calls_in_flight == 0) return;
    if (named.size() == kMaxHoldersInText) {
      ++not_named;
      return;
    }
    named.push_back(absl::StrCat(
        holder.name, ": ",
        why.ok() ? "has not answered" : std::string(why.message())));
  };
  for (const auto& holder : table_.present()) describe(*holder);
  for (const auto& holder : table_.removed()) {
    if (holder->calls_in_flight > 0) describe(*holder);
  }
  if (not_named > 0) named.push_back(absl::StrCat(not_named, " more"));
  return named.empty() ? ""
                       : absl::StrCat(" (", absl::StrJoin(named, "; "), ")");
}

absl::Time DispatchRun::NextEvent(absl::Time now) const {
  absl::Time next = absl::InfiniteFuture();
  for (size_t s = 0; s < pairs_.num_sequences(); ++s) {
    if (pairs_.unfinished(s) > 0) next = std::min(next, request_.deadlines[s]);
  }
  for (size_t i = 0; i < num_calls_; ++i) {
    if (IsAwaited(calls_[i])) {
      next = std::min(next, calls_[i].look_at);
    }
  }
  if (pairs_.num_wanting() == 0) return next;
  for (const auto& holder : table_.present()) {
    if (holder->avoid_until > now) next = std::min(next, holder->avoid_until);
  }
  return next;
}

}  // namespace switchyard::attention_worker
