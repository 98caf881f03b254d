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

constexpr absl::Duration kFirstRetryDelay = absl::Milliseconds(50);
constexpr absl::Duration kMaxRetryDelay = absl::Seconds(1);
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

  // Nothing is posted any more.
  void Close() {
    MutexLock lock(&mutex_);
    closed_ = true;
    events_.clear();
  }

 private:
  void Notify() {
    post_([stream = stream_, self = this] {
      auto live = stream.lock();
      // A mailbox of an earlier attempt is closed and has nothing to say.
      if (live != nullptr && live->mailbox_.get() == self) live->Drain();
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
      callbacks_(std::move(callbacks)) {}

TokenStream::~TokenStream() {
  if (mailbox_ != nullptr) mailbox_->Close();
}

void TokenStream::Start() { Try(); }

void TokenStream::Cancel() {
  if (ended_) return;
  ended_ = true;
  environment_.timers->Cancel(retry_timer_);
  if (mailbox_ == nullptr) return;
  mailbox_->Close();
  mailbox_.reset();
  lease_->worker()->Cancel(attempt_id_);
  lease_.reset();
}

void TokenStream::Try() {
  if (ended_) return;
  WorkerPool* const workers = environment_.workers;
  if (!last_worker_.empty()) {
    if (auto other = workers->Choose({last_worker_}); other.ok()) {
      return StartAttempt(*std::move(other));
    }
  }
  absl::StatusOr<WorkerLease> any = workers->Choose();
  if (any.ok()) return StartAttempt(*std::move(any));
  // Without a lost worker there is nothing to save by waiting.
  if (last_worker_.empty()) return End(any.status(), TokenFinish::kStop, {});
  RetryLater(any.status());
}

void TokenStream::StartAttempt(WorkerLease lease) {
  AttentionClient* const worker = lease.worker();
  last_worker_ = worker->name();
  lease_ = std::move(lease);
  attempt_id_ = absl::StrCat(request_.id, ".", ++attempt_);
  mailbox_ = std::make_shared<Mailbox>(environment_.post, weak_from_this());
  TokenRequest request = request_;
  request.id = attempt_id_;
  request.resumed_output_ids = output_ids_;
  worker->Generate(std::move(request), mailbox_);
}

bool TokenStream::OtherWorkerIsReady() {
  return absl::c_any_of(environment_.workers->Describe(),
                        [this](const WorkerPool::WorkerStatus& worker) {
                          return worker.not_ready.empty() &&
                                 worker.name != last_worker_;
                        });
}

void TokenStream::Drain() {
  const auto self =
      shared_from_this();  // callbacks may drop the last reference
  const auto mailbox = mailbox_;
  absl::optional<Mailbox::Done> done;
  const std::deque<TokenEvent> events = mailbox->Take(&done);
  for (const TokenEvent& event : events) {
    const int64_t expected =
        static_cast<int64_t>(request_.prompt_ids.size() + output_ids_.size());
    if (event.position != expected) {
      // The contract of the wire is broken: what follows cannot be trusted.
      lease_->worker()->Cancel(attempt_id_);
      return End(
          absl::InternalError(absl::StrCat(
              "attention worker ", last_worker_, " sent the token of position ",
              event.position, " where ", expected, " was expected")),
          TokenFinish::kStop, {});
    }
    output_ids_.push_back(event.id);
    give_up_ = absl::InfiniteFuture();
    callbacks_.on_token(event);
    if (ended_) return;
  }
  if (done) OnAttemptDone(done->status, done->finish, done->usage);
}

void TokenStream::OnAttemptDone(const absl::Status& status, TokenFinish finish,
                                const TokenUsage& usage) {
  mailbox_->Close();
  mailbox_.reset();
  lease_.reset();
  const bool full = absl::IsResourceExhausted(status) && output_ids_.empty();
  if (full && !tried_other_when_full_) {
    tried_other_when_full_ = true;
    if (OtherWorkerIsReady()) return Try();
  }
  if (!absl::IsUnavailable(status)) return End(status, finish, usage);
  // The worker died between its last token and saying so.
  if (EndedByItself()) return;
  LogWarning(absl::StrCat("request ", request_.id, ": attention worker ",
                          last_worker_, " was lost after ", output_ids_.size(),
                          " tokens (", std::string(status.message()), ")"));
  if (environment_.on_replay) environment_.on_replay();
  // Another worker at once; the same one a little later.
  if (give_up_ == absl::InfiniteFuture()) {
    if (OtherWorkerIsReady()) {
      give_up_ = environment_.timers->Now() + environment_.failover_timeout;
      retry_delay_ = kFirstRetryDelay;
      last_failure_ = status;
      return Try();
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
  const absl::Time when = std::min(now + retry_delay_, limit);
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
  if (mailbox_ != nullptr) mailbox_->Close();
  mailbox_.reset();
  lease_.reset();
  callbacks_.on_done(status, finish, usage);
}

}  // namespace switchyard::router
