#include "router/openai/token_stream.h"

#include <algorithm>
#include <deque>
#include <string>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "base/log.h"
#include "base/mutex.h"

namespace switchyard::router {
namespace {

// Choosing a worker asks nobody, so it may be tried often.
constexpr absl::Duration kFirstRetryDelay = absl::Milliseconds(20);
constexpr absl::Duration kMaxRetryDelay = absl::Milliseconds(200);
// Then other connections of the same I/O thread have their turn.
constexpr size_t kMaxEventsAtOnce = 64;

}  // namespace

// Where a worker's thread leaves events for the strand. Holds at most what one
// attempt gives: max_tokens tokens.
class TokenStream::Mailbox final : public TokenListener {
 public:
  struct Done {
    absl::Status status;
    TokenFinish finish;
    TokenUsage usage;
  };

  explicit Mailbox(std::function<void(std::function<void()>)> post,
                   std::weak_ptr<TokenStream> stream)
      : post_(std::move(post)), stream_(std::move(stream)) {}

  void OnToken(const TokenEvent& event) override {
    bool notify = false;
    {
      MutexLock lock(&mutex_);
      if (closed_) return;
      events_.push_back(event);
      notify = !std::exchange(notified_, true);
    }
    if (notify) Notify();
  }

  void OnDone(const absl::Status& status, TokenFinish finish,
              const TokenUsage& usage) override {
    bool notify = false;
    {
      MutexLock lock(&mutex_);
      if (closed_) return;
      done_ = Done{status, finish, usage};
      notify = !std::exchange(notified_, true);
    }
    if (notify) Notify();
  }

  // What came since the last time, or the first part of it: then the stream is
  // notified again. The end comes with the last part.
  std::deque<TokenEvent> Take(absl::optional<Done>* done) {
    std::deque<TokenEvent> taken;
    bool more = false;
    {
      MutexLock lock(&mutex_);
      while (!events_.empty() && taken.size() < kMaxEventsAtOnce) {
        taken.push_back(std::move(events_.front()));
        events_.pop_front();
      }
      more = !events_.empty();
      notified_ = more;
      if (!more) *done = std::exchange(done_, absl::nullopt);
    }
    if (more) Notify();
    return taken;
  }

  void OnMoveAdvised() override {
    {
      MutexLock lock(&mutex_);
      if (closed_) return;
    }
    post_([stream = stream_, self = this] {
      if (auto live = stream.lock()) live->MoveFrom(self);
    });
  }

  // Nothing is posted any more.
  void Close() {
    MutexLock lock(&mutex_);
    closed_ = true;
    events_.clear();
  }

 private:
  void Notify() {
    post_([stream = stream_, self = this] {
      if (auto live = stream.lock()) live->Drain(self);
    });
  }

  const std::function<void(std::function<void()>)> post_;
  const std::weak_ptr<TokenStream> stream_;
  Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool notified_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<TokenEvent> events_ ABSL_GUARDED_BY(mutex_);
  absl::optional<Done> done_ ABSL_GUARDED_BY(mutex_);
};

TokenStream::TokenStream(Environment environment, TokenRequest request,
                         Callbacks callbacks)
    : environment_(std::move(environment)),
      request_(std::move(request)),
      callbacks_(std::move(callbacks)),
      next_prompt_token_(request_.prompt_logprobs_from.value_or(0)) {}

TokenStream::~TokenStream() {
  for (const Attempt& attempt : attempts_) attempt.mailbox->Close();
}

void TokenStream::Start() { Try(); }

void TokenStream::Cancel() {
  if (ended_) return;
  ended_ = true;
  environment_.timers->Cancel(retry_timer_);
  CancelAttempts(/*but=*/nullptr);
  receiver_.reset();
}

void TokenStream::Try() {
  if (ended_) return;
  if (!last_worker_.empty()) {
    auto other = environment_.workers->Choose({last_worker_});
    if (other.ok()) return StartAttempt(*std::move(other));
  }
  absl::StatusOr<WorkerLease> any = environment_.workers->Choose();
  if (any.ok()) return StartAttempt(*std::move(any));
  if (last_worker_.empty()) return WaitForWorker(any.status());
  RetryLater(any.status());
}

absl::optional<WorkerLease> TokenStream::OtherReadyWorker(
    const std::string& but) {
  std::vector<std::string> exclude = {but};
  for (const Attempt& attempt : attempts_) {
    exclude.push_back(attempt.lease.worker()->name());
  }
  const bool ready =
      absl::c_any_of(environment_.workers->Describe(),
                     [&](const WorkerPool::WorkerStatus& worker) {
                       return worker.not_ready.empty() &&
                              !absl::c_linear_search(exclude, worker.name);
                     });
  if (!ready) return absl::nullopt;
  absl::StatusOr<WorkerLease> lease = environment_.workers->Choose(exclude);
  if (!lease.ok()) return absl::nullopt;
  return *std::move(lease);
}

void TokenStream::StartAttempt(WorkerLease lease) {
  AttentionClient* const worker = lease.worker();
  TokenRequest request = request_;
  request.id = absl::StrCat(request_.id, ".", ++num_attempts_);
  request.resumed_output_ids = output_ids_;
  auto mailbox = std::make_shared<Mailbox>(environment_.post, weak_from_this());
  attempts_.push_back({std::move(lease), request.id, mailbox});
  worker->Generate(std::move(request), std::move(mailbox));
}

TokenStream::Attempt* TokenStream::Find(const Mailbox* mailbox) {
  for (Attempt& attempt : attempts_) {
    if (attempt.mailbox.get() == mailbox) return &attempt;
  }
  return nullptr;
}

void TokenStream::Forget(const Mailbox* mailbox) {
  for (auto it = attempts_.begin(); it != attempts_.end(); ++it) {
    if (it->mailbox.get() != mailbox) continue;
    it->mailbox->Close();
    last_worker_ = it->lease.worker()->name();
    attempts_.erase(it);
    return;
  }
}

void TokenStream::CancelAttempts(const Mailbox* but) {
  for (auto it = attempts_.begin(); it != attempts_.end();) {
    if (it->mailbox.get() == but) {
      ++it;
      continue;
    }
    it->mailbox->Close();
    last_worker_ = it->lease.worker()->name();
    it->lease.worker()->Cancel(it->id);
    it = attempts_.erase(it);
  }
}

void TokenStream::Drain(const Mailbox* from) {
  const auto self =
      shared_from_this();  // callbacks may drop the last reference
  const Attempt* const attempt = Find(from);
  // A mailbox of an earlier attempt is closed and has nothing to say.
  if (attempt == nullptr) return;
  const auto mailbox = attempt->mailbox;
  absl::optional<Mailbox::Done> done;
  const std::deque<TokenEvent> events = mailbox->Take(&done);
  // The others began with as many tokens: what they say now comes too late.
  if (!events.empty()) CancelAttempts(/*but=*/from);
  for (const TokenEvent& event : events) {
    const int64_t prompt = static_cast<int64_t>(request_.prompt_ids.size());
    const bool of_prompt =
        request_.prompt_logprobs_from && event.position < prompt;
    if (of_prompt && event.position < next_prompt_token_) continue;  // again
    const int64_t expected =
        of_prompt ? next_prompt_token_
                  : prompt + static_cast<int64_t>(output_ids_.size());
    if (event.position != expected) {
      // The contract of the wire is broken: what follows cannot be trusted.
      CancelAttempts(/*but=*/nullptr);
      return End(
          absl::InternalError(absl::StrCat(
              "attention worker ", last_worker_, " sent the token of position ",
              event.position, " where ", expected, " was expected")),
          TokenFinish::kStop, {});
    }
    if (of_prompt) {
      ++next_prompt_token_;
      if (callbacks_.on_prompt_token) callbacks_.on_prompt_token(event);
      if (ended_) return;
      continue;
    }
    if (!cached_prompt_tokens_) {
      cached_prompt_tokens_ = event.cached_prompt_tokens;
    }
    output_ids_.push_back(event.id);
    give_up_ = absl::InfiniteFuture();
    callbacks_.on_token(event);
    if (ended_) return;
  }
  if (!done) return;
  Forget(from);
  OnAttemptDone(done->status, done->finish, done->usage);
}

void TokenStream::MoveFrom(const Mailbox* mailbox) {
  const Attempt* const attempt = Find(mailbox);
  if (ended_ || attempt == nullptr) return;
  const AttentionWorkerInfo info = attempt->lease.worker()->info();
  using State = AttentionWorkerInfo::State;
  const bool drains = info.state == State::kDraining;
  if (drains && receiver_) {
    if (!info.silent) return;
    Replay(absl::StrCat(attempt->lease.worker()->name(), " does not answer"));
    CancelAttempts(/*but=*/nullptr);
    return GoOnAtReceiver();
  }
  // What was true when the advice was given may have passed.
  if (!drains && !info.silent && info.state != State::kUnreachable) return;
  if (!drains && attempts_.size() >= kMaxAttempts) return;
  absl::optional<WorkerLease> other = OtherReadyWorker(/*but=*/"");
  if (!other) return;  // the advice comes again
  if (drains && attempts_.size() == 1 && MovingIsCheaper(info)) {
    return HandOverTo(*std::move(other));
  }
  Replay(absl::StrCat(attempt->lease.worker()->name(),
                      drains ? " drains" : " does not answer"));
  // One that is only silent may come back, and be the first.
  if (drains) CancelAttempts(/*but=*/nullptr);
  StartAttempt(*std::move(other));
}

bool TokenStream::MovingIsCheaper(const AttentionWorkerInfo& from) const {
  const int64_t tokens =
      static_cast<int64_t>(request_.prompt_ids.size() + output_ids_.size());
  return environment_.move_costs != nullptr && from.state_fixed_bytes > 0 &&
         environment_.move_costs->MovingIsCheaper(
             tokens, from.state_fixed_bytes + tokens * from.state_token_bytes);
}

void TokenStream::HandOverTo(WorkerLease to) {
  const Attempt& attempt = attempts_.front();
  AttentionClient* const receiver = to.worker();
  receiver_ = std::move(to);
  handed_over_ = false;
  const absl::Time begin = environment_.timers->Now();
  attempt.lease.worker()->HandOver(
      attempt.id, receiver,
      [post = environment_.post, timers = environment_.timers, begin,
       stream = weak_from_this()](const absl::StatusOr<HandedOver>& result) {
        post([stream, result, took = timers->Now() - begin] {
          if (auto live = stream.lock()) live->OnHandedOver(result, took);
        });
      });
}

void TokenStream::OnHandedOver(const absl::StatusOr<HandedOver>& result,
                               absl::Duration took) {
  if (ended_ || !receiver_) return;
  handed_over_ = true;
  if (result.ok()) {
    environment_.move_costs->ObserveMove(result->bytes, took);
    if (environment_.on_state_moved) environment_.on_state_moved(result->bytes);
    // Its last tokens are on their way; then it says that it was handed over.
    if (!attempts_.empty()) return;
  } else {
    Replay(absl::StrCat("keeps its state (",
                        std::string(result.status().message()), ")"));
    CancelAttempts(/*but=*/nullptr);
  }
  GoOnAtReceiver();
}

void TokenStream::GoOnAtReceiver() {
  WorkerLease receiver = *std::move(receiver_);
  receiver_.reset();
  StartAttempt(std::move(receiver));
}

void TokenStream::Replay(const std::string& why) {
  LogWarning(absl::StrCat("request ", request_.id, ": attention worker ", why,
                          ", after ", output_ids_.size(), " tokens"));
  if (environment_.on_replay) environment_.on_replay();
}

void TokenStream::OnAttemptDone(const absl::Status& status, TokenFinish finish,
                                const TokenUsage& usage) {
  // One of two that the other outlives.
  if (!status.ok() && !attempts_.empty()) return;
  const bool full = absl::IsResourceExhausted(status) && output_ids_.empty();
  if (full && !tried_other_when_full_) {
    tried_other_when_full_ = true;
    if (auto other = OtherReadyWorker(last_worker_)) {
      return StartAttempt(*std::move(other));
    }
  }
  // What was accepted once is not refused when it has to move.
  if (absl::IsResourceExhausted(status) && num_attempts_ > 1 && !full) {
    return RetryLater(status);
  }
  if (!absl::IsUnavailable(status)) return End(status, finish, usage);
  // The worker died between its last token and saying so.
  if (EndedByItself()) return;
  if (receiver_) {
    // Either its state is being brought, or it was lost meanwhile: the receiver
    // reads what it lacks.
    if (handed_over_) GoOnAtReceiver();
    return;
  }
  Replay(absl::StrCat(last_worker_, " was lost (",
                      std::string(status.message()), ")"));
  // Another worker at once; the same one a little later.
  if (give_up_ == absl::InfiniteFuture()) {
    if (auto other = OtherReadyWorker(last_worker_)) {
      give_up_ = environment_.timers->Now() + environment_.failover_timeout;
      retry_delay_ = kFirstRetryDelay;
      last_failure_ = status;
      return StartAttempt(*std::move(other));
    }
  }
  RetryLater(status);
}

bool TokenStream::EndedByItself() {
  TokenUsage usage;
  usage.prompt_tokens = static_cast<int64_t>(request_.prompt_ids.size());
  usage.output_tokens = static_cast<int64_t>(output_ids_.size());
  if (!output_ids_.empty() &&
      absl::c_linear_search(request_.stop_token_ids, output_ids_.back())) {
    End(absl::OkStatus(), TokenFinish::kStop, usage);
    return true;
  }
  if (usage.output_tokens >= request_.max_tokens) {
    End(absl::OkStatus(), TokenFinish::kLength, usage);
    return true;
  }
  return false;
}

void TokenStream::RetryLater(const absl::Status& why) {
  last_failure_ = why;
  const absl::Time now = environment_.timers->Now();
  if (give_up_ == absl::InfiniteFuture()) {
    give_up_ = now + environment_.failover_timeout;
    retry_delay_ = kFirstRetryDelay;
  }
  const absl::Time limit = std::min(give_up_, request_.deadline);
  if (now >= limit) return End(last_failure_, TokenFinish::kStop, {});
  SetRetryTimer(limit);
}

void TokenStream::WaitForWorker(const absl::Status& why) {
  const absl::Time limit =
      std::min(environment_.workers->ExpectedBackBy(), request_.deadline);
  if (environment_.timers->Now() >= limit) {
    return End(why, TokenFinish::kStop, {});
  }
  if (!std::exchange(waited_for_worker_, true)) {
    retry_delay_ = kFirstRetryDelay;
    if (environment_.on_wait) environment_.on_wait();
  }
  SetRetryTimer(limit);
}

void TokenStream::SetRetryTimer(absl::Time limit) {
  const absl::Time when =
      std::min(environment_.timers->Now() + retry_delay_, limit);
  retry_delay_ = std::min(2 * retry_delay_, kMaxRetryDelay);
  retry_timer_ = environment_.timers->RunAt(
      when, [post = environment_.post, stream = weak_from_this()] {
        post([stream] {
          if (auto live = stream.lock()) live->Try();
        });
      });
}

void TokenStream::End(const absl::Status& status, TokenFinish finish,
                      const TokenUsage& usage) {
  if (ended_) return;
  ended_ = true;
  CancelAttempts(/*but=*/nullptr);
  receiver_.reset();
  // Of one attempt alone: what a replay reads, others may have kept.
  if (status.ok() && num_attempts_ == 1 && environment_.move_costs != nullptr) {
    environment_.move_costs->ObserveReading(
        usage.prompt_tokens - usage.cached_prompt_tokens, usage.prefill_time);
  }
  TokenUsage told = usage;
  told.cached_prompt_tokens =
      cached_prompt_tokens_.value_or(usage.cached_prompt_tokens);
  callbacks_.on_done(status, finish, told);
}

}  // namespace switchyard::router
