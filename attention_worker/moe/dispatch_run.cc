#include "attention_worker/moe/dispatch_run.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "attention_worker/moe/expert_client_metrics.h"
#include "base/check.h"
#include "kernels/kernel_table.h"

namespace switchyard::attention_worker {
namespace {

// Holders named in one error text; more are counted only.
constexpr size_t kMaxHoldersInText = 8;
// Replies' outputs that come in pieces: a long prompt's, 2,048 rows of 10
// experts at H = 2048.
constexpr size_t kMaxIdleBytes = size_t{192} << 20;

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
      clients_(*clients) {}

std::unique_ptr<DispatchRun::Holder> DispatchRun::NewHolder(
    const ClientSet::Member& member, const Holder* same_name) const {
  auto holder = std::make_unique<Holder>();
  holder->id = member.id;
  holder->name = member.client->name();
  holder->client = member.client;
  holder->holdings = member.client->holdings();
  if (same_name != nullptr) {
    holder->accept_seconds = same_name->accept_seconds;
    holder->backoff = same_name->backoff;
    return holder;
  }
  holder->accept_seconds =
      AddDispatchPhase(options_.registry, holder->name, "accept");
  holder->backoff = options_.min_backoff;
  return holder;
}

void DispatchRun::ChangeHolders() {
  std::vector<std::unique_ptr<Holder>> before = std::move(holders_);
  holders_.clear();
  for (const ClientSet::Member& member : members_) {
    const auto same = std::find_if(
        before.begin(), before.end(), [&member](const auto& holder) {
          return holder != nullptr && holder->id == member.id;
        });
    if (same != before.end()) {
      holders_.push_back(std::move(*same));
      continue;
    }
    const std::string name = member.client->name();
    const auto named =
        std::find_if(before.begin(), before.end(), [&name](const auto& holder) {
          return holder != nullptr && holder->name == name;
        });
    holders_.push_back(
        NewHolder(member, named == before.end() ? nullptr : named->get()));
  }
  for (std::unique_ptr<Holder>& holder : before) {
    if (holder == nullptr) continue;
    holder->client = nullptr;
    removed_.push_back(std::move(holder));
  }
}

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
  const absl::Time latest = clock_.Now() + options_.max_wait;
  for (const absl::Time deadline : request.deadlines) {
    deadlines_.push_back(std::min(deadline, latest));
  }
  request_.deadlines = deadlines_;
  number_ = inbox_->Open();
  sequence_status_.assign(request.deadlines.size(), absl::OkStatus());
  outputs_.assign(static_cast<size_t>(num_pairs), nullptr);
  pairs_.assign(static_cast<size_t>(num_pairs), PairState::kWaiting);
  unfinished_.assign(request.deadlines.size(), 0);
  for (const int32_t sequence : request.sequence_of_row) {
    SY_CHECK(sequence >= 0 &&
             static_cast<size_t>(sequence) < request.deadlines.size());
    unfinished_[sequence] += request.experts_per_row;
  }
  num_unfinished_ = num_waiting_ = num_pairs;
  for (size_t i = 0; i < num_calls_; ++i) calls_[i].reply = ExpertReply();
  num_calls_ = 0;
  removed_.clear();
  if (clients_.BeginDispatch(&clients_version_, &members_)) ChangeHolders();
  for (const auto& holder : holders_) {
    holder->calls_in_flight = 0;
    holder->compute_time = absl::ZeroDuration();
  }
  slot_of_row_.resize(static_cast<size_t>(request.num_rows), -1);
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
  by_expert_.resize(pairs_.size());
  for (size_t pair = 0; pair < pairs_.size(); ++pair) {
    by_expert_[begin_[request_.experts[pair]]++] = static_cast<int64_t>(pair);
  }
}

// Once for all holders: what one sender quantises, every receiver multiplies.
void DispatchRun::Quantize() {
  if (!options_.quantize_rows || request_.quantized.values != nullptr) return;
  const PartTimer timer(metrics_.quantize_seconds, clock_);
  const int64_t hidden = request_.hidden_size;
  const int64_t rows = request_.num_rows;
  const int64_t columns = kernels::PaddedColumns(hidden);
  const int64_t groups = kernels::NumGroups(hidden);
  const int64_t scale_bytes = groups * static_cast<int64_t>(sizeof(float));
  const int64_t row_bytes = columns + 2 * scale_bytes;
  if (static_cast<int64_t>(quantized_.size()) < rows * row_bytes) {
    quantized_ = buffers_->Take(static_cast<size_t>(rows * row_bytes));
  }
  char* const base = quantized_.data();
  auto* const values = reinterpret_cast<int8_t*>(base);
  auto* const scales = reinterpret_cast<float*>(base + rows * columns);
  auto* const sums =
      reinterpret_cast<int32_t*>(base + rows * (columns + scale_bytes));
  const kernels::KernelTable& kernels = kernels::Kernels();
  for (int64_t row = 0; row < rows; ++row) {
    kernels.quantize_row(&request_.rows[row * hidden], hidden,
                         values + row * columns, scales + row * groups,
                         sums + row * groups);
  }
  request_.quantized = {values, scales, sums, hidden};
}

DispatchResult DispatchRun::Execute(const DispatchRequest& request,
                                    absl::FunctionRef<void()> overlap) {
  const PartTimer timer(metrics_.seconds, clock_);
  Begin(request);
  Quantize();
  {
    const PartTimer send(metrics_.send_seconds, clock_);
    TakeNews(absl::InfinitePast());
    ExpireSequences(clock_.Now());
    SendWaiting(/*computing=*/false);
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
    ExpireSequences(clock_.Now());
    SendWaiting(/*computing=*/false);
    SendWaiting(/*computing=*/true);
    if (num_unfinished_ == 0) break;
    TakeNews(NextEvent(clock_.Now()));
  }
  inbox_->Close();
  clients_.EndDispatch();
  absl::Duration longest;
  for (const auto* holders : {&holders_, &removed_}) {
    for (const auto& holder : *holders) {
      longest = std::max(longest, holder->compute_time);
    }
  }
  return {.outputs = outputs_,
          .sequence_status = sequence_status_,
          .compute_time = longest};
}

DispatchRun::Holder* DispatchRun::ChooseHolder(int expert, bool computing,
                                               absl::Time now) {
  candidates_.clear();
  for (size_t i = 0; i < holders_.size(); ++i) {
    const Holder& holder = *holders_[i];
    if (now >= holder.avoid_until &&
        Holds(holder.holdings, request_.layer, expert)) {
      candidates_.push_back(static_cast<int>(i));
    }
  }
  if (candidates_.empty()) return nullptr;
  // The choice is made among all, so that it is the same in both passes.
  const size_t choice = options_.policy(request_.layer, expert, candidates_);
  SY_CHECK(choice < candidates_.size());
  Holder* const chosen = holders_[candidates_[choice]].get();
  return chosen->client->computes_in_forward() == computing ? chosen : nullptr;
}

size_t DispatchRun::NewCall(Holder* holder) {
  if (num_calls_ == calls_.size()) calls_.emplace_back();
  calls_[num_calls_].holder = holder;
  calls_[num_calls_].pairs.clear();
  return num_calls_++;
}

void DispatchRun::SendWaiting(bool computing) {
  if (num_waiting_ == 0) return;
  const absl::Time now = clock_.Now();
  const int64_t max_pairs = std::max<int64_t>(
      1, options_.max_call_output_bytes /
             (request_.hidden_size * static_cast<int64_t>(sizeof(float))));
  const size_t first_call = num_calls_;
  for (const auto& holder : holders_) holder->draft = -1;
  int32_t expert = -1;
  Holder* chosen = nullptr;
  for (const int64_t pair : by_expert_) {
    if (pairs_[pair] != PairState::kWaiting) continue;
    if (request_.experts[pair] != expert) {
      expert = request_.experts[pair];
      chosen = ChooseHolder(expert, computing, now);
    }
    if (chosen == nullptr) continue;
    // A row counts once in a call, but every pair may bring another one.
    const int64_t limit = std::max<int64_t>(
        1, std::min(max_pairs, chosen->client->max_call_rows()));
    int& draft = chosen->draft;
    if (draft < 0 ||
        static_cast<int64_t>(calls_[draft].pairs.size()) >= limit) {
      if (chosen->calls_in_flight >= options_.max_calls_in_flight) continue;
      ++chosen->calls_in_flight;
      draft = static_cast<int>(NewCall(chosen));
    }
    calls_[draft].pairs.push_back(pair);
  }
  const size_t end = num_calls_;
  for (size_t call = first_call; call < end; ++call) Send(call);
}

ExpertCall DispatchRun::MakeCall(const Call& call) {
  ExpertCall made;
  made.layer = request_.layer;
  made.hidden_size = request_.hidden_size;
  made.rows = request_.rows;
  made.quantized = request_.quantized;
  made.deadline = absl::InfinitePast();
  // Each distinct row once, ascending, so that runs are ascending too.
  rows_.clear();
  for (const int64_t pair : call.pairs) {
    int32_t& slot = slot_of_row_[RowOf(pair)];
    if (slot >= 0) continue;
    slot = 0;
    rows_.push_back(static_cast<int32_t>(RowOf(pair)));
    made.deadline =
        std::max(made.deadline, request_.deadlines[SequenceOf(pair)]);
  }
  std::sort(rows_.begin(), rows_.end());
  for (size_t i = 0; i < rows_.size(); ++i) {
    slot_of_row_[rows_[i]] = static_cast<int32_t>(i);
  }
  size_t num_runs = 0;
  int last_expert = -1;
  for (const int64_t pair : call.pairs) {
    const int expert = request_.experts[pair];
    if (expert != last_expert) {
      last_expert = expert;
      if (num_runs == runs_.size()) runs_.emplace_back();
      runs_[num_runs].expert = expert;
      runs_[num_runs].rows.clear();
      ++num_runs;
    }
    runs_[num_runs - 1].rows.push_back(slot_of_row_[RowOf(pair)]);
  }
  for (const int32_t row : rows_) slot_of_row_[row] = -1;
  made.num_rows = static_cast<int64_t>(rows_.size());
  made.source_rows = rows_;
  made.runs = absl::MakeConstSpan(runs_).first(num_runs);
  return made;
}

void DispatchRun::Send(size_t index) {
  Call& call = calls_[index];
  for (const int64_t pair : call.pairs) pairs_[pair] = PairState::kInFlight;
  num_waiting_ -= static_cast<int64_t>(call.pairs.size());
  call.holder->client->Forward(
      MakeCall(call), [inbox = inbox_, number = number_,
                       index](absl::StatusOr<ExpertReply> reply) {
        inbox->Deliver(number, index, std::move(reply));
      });
}

void DispatchRun::TakeNews(absl::Time deadline) {
  if (deadline == absl::InfinitePast()) {
    inbox_->Take(deadline, nullptr, &news_);
  } else {
    const PartTimer waiting(metrics_.wait_seconds, clock_);
    inbox_->Take(deadline, options_.pool, &news_);
  }
  for (ReplyInbox::Arrival& arrival : news_.arrivals) {
    Call& call = calls_[arrival.call];
    --call.holder->calls_in_flight;
    if (arrival.reply.ok()) {
      const PartTimer accepting(call.holder->accept_seconds, clock_);
      Accept(&call, *std::move(arrival.reply));
    } else {
      Refuse(call, arrival.reply.status());
    }
  }
  news_.arrivals.clear();
  if (news_.clients_changed && clients_.Read(&clients_version_, &members_)) {
    ChangeHolders();
  }
  // After the replies: a holder that failed a call and then came back is no
  // longer to be avoided.
  for (const uint64_t id : news_.changed) {
    for (const auto& holder : holders_) {
      if (holder->id != id) continue;
      holder->holdings = holder->client->holdings();
      holder->avoid_until = absl::InfinitePast();
    }
  }
}

void DispatchRun::Accept(Call* call, ExpertReply reply) {
  const auto hidden = static_cast<size_t>(request_.hidden_size);
  // Clients check their peers' sizes; this is a promise of our own.
  SY_CHECK(reply.num_floats() == call->pairs.size() * hidden);
  Holder& holder = *call->holder;
  holder.backoff = options_.min_backoff;
  holder.compute_time += reply.compute_time();
  call->reply = std::move(reply);
  const float* next = call->reply.Outputs(buffers_.get()).data();
  for (const int64_t pair : call->pairs) {
    if (pairs_[pair] != PairState::kFailed) {
      SY_CHECK(pairs_[pair] == PairState::kInFlight);
      pairs_[pair] = PairState::kDone;
      outputs_[pair] = next;
      --unfinished_[SequenceOf(pair)];
      --num_unfinished_;
    }
    next += hidden;
  }
}

void DispatchRun::Refuse(const Call& call, const absl::Status& error) {
  Holder& holder = *call.holder;
  holder.avoid_until = clock_.Now() + holder.backoff;
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
        absl::Status(error.code(),
                     absl::StrCat("layer ", request_.layer, ": ", holder.name,
                                  ": ", error.message())));
  }
}

void DispatchRun::ExpireSequences(absl::Time now) {
  for (size_t s = 0; s < unfinished_.size(); ++s) {
    if (unfinished_[s] > 0 && now >= request_.deadlines[s]) {
      FailSequence(s, DeadlineError(s));
    }
  }
}

void DispatchRun::FailSequence(size_t sequence, absl::Status status) {
  for (int64_t pair = 0; pair < static_cast<int64_t>(pairs_.size()); ++pair) {
    PairState& state = pairs_[pair];
    if (SequenceOf(pair) != sequence || state == PairState::kDone) continue;
    if (state == PairState::kWaiting) --num_waiting_;
    state = PairState::kFailed;
  }
  num_unfinished_ -= unfinished_[sequence];
  unfinished_[sequence] = 0;
  sequence_status_[sequence] = std::move(status);
  metrics_.failed_sequences->Increment();
}

absl::Status DispatchRun::DeadlineError(size_t sequence) const {
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
  for (const auto& holder : holders_) describe(*holder);
  for (const auto& holder : removed_) {
    if (holder->calls_in_flight > 0) describe(*holder);
  }
  if (not_named > 0) named.push_back(absl::StrCat(not_named, " more"));
  return named.empty() ? ""
                       : absl::StrCat(" (", absl::StrJoin(named, "; "), ")");
}

absl::Time DispatchRun::NextEvent(absl::Time now) const {
  absl::Time next = absl::InfiniteFuture();
  for (size_t s = 0; s < unfinished_.size(); ++s) {
    if (unfinished_[s] > 0) next = std::min(next, request_.deadlines[s]);
  }
  if (num_waiting_ == 0) return next;
  for (const auto& holder : holders_) {
    if (holder->avoid_until > now) next = std::min(next, holder->avoid_until);
  }
  return next;
}

}  // namespace switchyard::attention_worker
