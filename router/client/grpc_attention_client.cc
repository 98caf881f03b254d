#include "router/client/grpc_attention_client.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "grpcpp/grpcpp.h"
#include "proto/generation.grpc.pb.h"
#include "router/client/generation_codec.h"
#include "router/client/session_client.h"
#include "rpc/channel.h"
#include "rpc/status_conversion.h"

namespace switchyard::router {
namespace {

constexpr absl::Duration kIdleWait = absl::Seconds(1);

class GenerateCall;

// The calls that run. Shared with them, since the last one to end tells the
// client's destructor.
class LiveCalls {
 public:
  void Add(const std::string& id, GenerateCall* call)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    calls_.emplace(id, call);
    ++count_;
  }
  // From now on Cancel() does not reach `call`.
  void Remove(const std::string& id, const GenerateCall* call)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    for (auto it = calls_.lower_bound(id); it != calls_.upper_bound(id); ++it) {
      if (it->second == call) {
        calls_.erase(it);
        return;
      }
    }
  }
  // After the last use of a removed call.
  void CountDown() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    --count_;
    changed_.SignalAll();
  }
  void Cancel(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_);
  void CancelAll() ABSL_LOCKS_EXCLUDED(mutex_);
  bool Contains(const std::string& id) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return calls_.contains(id);
  }
  std::vector<std::shared_ptr<TokenListener>> Listeners()
      ABSL_LOCKS_EXCLUDED(mutex_);
  void WaitUntilNone() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    while (count_ > 0) {
      // gRPC ends cancelled calls at once, so this is a question of when a
      // listener returns.
      if (!changed_.WaitUntil(&mutex_, absl::Now() + absl::Seconds(10))) {
        LogWarning(absl::StrCat(count_, " calls have not ended yet"));
      }
    }
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::multimap<std::string, GenerateCall*> calls_ ABSL_GUARDED_BY(mutex_);
  int64_t count_ ABSL_GUARDED_BY(mutex_) = 0;
};

// One request. gRPC calls the On... methods one at a time; deletes itself in
// OnDone.
class GenerateCall final : public grpc::ClientReadReactor<v1::GenerateReply> {
 public:
  GenerateCall(std::string worker, std::string id, v1::GenerateRequest request,
               std::shared_ptr<TokenListener> listener,
               std::shared_ptr<LiveCalls> live)
      : worker_(std::move(worker)),
        id_(std::move(id)),
        request_(std::move(request)),
        listener_(std::move(listener)),
        live_(std::move(live)) {}

  void Start(v1::Generation::Stub* stub, absl::Time deadline,
             const std::string& traceparent) {
    if (!traceparent.empty()) context_.AddMetadata("traceparent", traceparent);
    if (deadline != absl::InfiniteFuture()) {
      context_.set_deadline(absl::ToChronoTime(deadline));
    }
    live_->Add(id_, this);
    stub->async()->Generate(&context_, &request_, this);
    StartRead(&reply_);
    StartCall();  // from here on OnDone may come, and delete this
  }

  // Under LiveCalls' lock, and so never after OnDone's Remove.
  void Cancel() {
    cancelled_ = true;
    context_.TryCancel();
  }

  const std::shared_ptr<TokenListener>& listener() const { return listener_; }

  void OnReadDone(bool ok) override {
    if (!ok) return;  // OnDone follows
    const absl::Status status = TakeReply();
    if (!status.ok()) {
      broken_ = status;
      context_.TryCancel();
      return;
    }
    StartRead(&reply_);
  }

  void OnDone(const grpc::Status& status) override {
    live_->Remove(id_, this);
    const absl::Status result = Result(status);
    const TokenOutcome outcome = outcome_.value_or(TokenOutcome());
    listener_->OnDone(result, outcome.finish, outcome.usage);
    const std::shared_ptr<LiveCalls> live = live_;
    delete this;
    live->CountDown();
  }

 private:
  absl::Status TakeReply() {
    if (outcome_.has_value()) {
      return absl::InternalError("the worker sent something after `finished`");
    }
    switch (reply_.kind_case()) {
      case v1::GenerateReply::kToken: {
        SY_ASSIGN_OR_RETURN(const TokenEvent event,
                            TokenEventFromProto(reply_.token()));
        listener_->OnToken(event);
        return absl::OkStatus();
      }
      case v1::GenerateReply::kFinished: {
        SY_ASSIGN_OR_RETURN(outcome_, TokenOutcomeFromProto(reply_.finished()));
        return absl::OkStatus();
      }
      case v1::GenerateReply::KIND_NOT_SET:
        break;
    }
    return absl::InternalError("the worker sent an empty reply");
  }

  absl::Status Result(const grpc::Status& status) const {
    const auto named = [&](absl::StatusCode code, absl::string_view text) {
      return absl::Status(
          code, absl::StrCat("attention worker ", worker_, ": ", text));
    };
    if (!broken_.ok()) return named(broken_.code(), broken_.message());
    // `finished` is the last word, whatever happened to the connection after
    // it.
    if (outcome_.has_value()) return absl::OkStatus();
    if (status.ok()) {
      return named(absl::StatusCode::kInternal,
                   "the stream ended without `finished`");
    }
    absl::Status result = rpc::FromGrpcStatus(status);
    if (absl::IsCancelled(result) && !cancelled_) {
      // The worker's process broke the stream off: nobody here asked for it.
      return named(absl::StatusCode::kUnavailable,
                   absl::StrCat("broke the stream off: ", result.message()));
    }
    return named(result.code(), result.message());
  }

  const std::string worker_;
  const std::string id_;
  const v1::GenerateRequest request_;
  const std::shared_ptr<TokenListener> listener_;
  const std::shared_ptr<LiveCalls> live_;
  grpc::ClientContext context_;
  v1::GenerateReply reply_;
  std::optional<TokenOutcome> outcome_;
  absl::Status broken_;  // how the worker broke the protocol
  // Written under LiveCalls' lock until Remove(), read after it.
  bool cancelled_ = false;
};

void LiveCalls::Cancel(const std::string& id) {
  MutexLock lock(&mutex_);
  for (auto it = calls_.lower_bound(id); it != calls_.upper_bound(id); ++it) {
    it->second->Cancel();
  }
}

void LiveCalls::CancelAll() {
  MutexLock lock(&mutex_);
  for (const auto& [id, call] : calls_) call->Cancel();
}

std::vector<std::shared_ptr<TokenListener>> LiveCalls::Listeners() {
  MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<TokenListener>> listeners;
  for (const auto& [id, call] : calls_) listeners.push_back(call->listener());
  return listeners;
}

class GrpcAttentionClient final : public AttentionClient {
 public:
  GrpcAttentionClient(GrpcAttentionClientOptions options,
                      std::shared_ptr<SessionClient> sessions)
      : options_(std::move(options)),
        channel_(rpc::NewChannel(options_.address)),
        stub_(v1::Generation::NewStub(channel_)),
        sessions_(std::move(sessions)),
        calls_(std::make_shared<LiveCalls>()),
        last_answer_(absl::InfinitePast()) {
    info_.message = "not asked yet";
    poll_thread_ = StartThread("sy-poll", [this] { Poll(); });
    hand_over_thread_ = StartThread("sy-hand-over", [this] { HandOverAll(); });
  }

  ~GrpcAttentionClient() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      if (poll_context_ != nullptr) poll_context_->TryCancel();
      wake_.SignalAll();
    }
    sessions_->CancelAll();
    poll_thread_.join();
    hand_over_thread_.join();
    calls_->CancelAll();
    calls_->WaitUntilNone();
  }

  std::string name() const override { return options_.address; }

  AttentionWorkerInfo info() const override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return info_;
  }

  void AskNow() override ABSL_LOCKS_EXCLUDED(mutex_) {
    // A question that waits for a connection gets it; one that is due later
    // comes now.
    grpc::experimental::ChannelResetConnectionBackoff(channel_.get());
    MutexLock lock(&mutex_);
    ask_now_ = true;
    wake_.SignalAll();
  }

  void Generate(TokenRequest request,
                std::shared_ptr<TokenListener> listener) override {
    absl::StatusOr<v1::GenerateRequest> message =
        TokenRequestToProto(request, info().model_fingerprint);
    if (!message.ok()) {
      listener->OnDone(message.status(), TokenFinish::kStop, TokenUsage());
      return;
    }
    auto* call =
        new GenerateCall(options_.address, std::move(request.id),
                         *std::move(message), std::move(listener), calls_);
    call->Start(stub_.get(), request.deadline, request.traceparent);
  }

  void Cancel(const std::string& request_id) override {
    calls_->Cancel(request_id);
  }

  void FlushCache(std::function<void(absl::Status)> done) override {
    struct Call {
      grpc::ClientContext context;
      v1::FlushCacheRequest request;
      v1::FlushCacheReply reply;
    };
    auto call = std::make_shared<Call>();
    call->context.set_deadline(
        absl::ToChronoTime(absl::Now() + options_.poll_timeout));
    stub_->async()->FlushCache(
        &call->context, &call->request, &call->reply,
        [call, done = std::move(done),
         name = name()](const grpc::Status& status) {
          const absl::Status result = rpc::FromGrpcStatus(status);
          done(result.ok()
                   ? result
                   : absl::Status(result.code(),
                                  absl::StrCat("attention worker ", name, ": ",
                                               result.message())));
        });
  }

  void HandOver(const std::string& request_id, AttentionClient* to,
                std::function<void(const absl::StatusOr<HandedOver>&)> done)
      override ABSL_LOCKS_EXCLUDED(mutex_) {
    auto* const receiver = dynamic_cast<GrpcAttentionClient*>(to);
    if (receiver == nullptr) {
      return done(absl::UnimplementedError(
          absl::StrCat("no state can be moved to ", to->name())));
    }
    MutexLock lock(&mutex_);
    hand_overs_.push_back({request_id, receiver->sessions_, std::move(done)});
    wake_.SignalAll();
  }

 private:
  struct HandOverJob {
    std::string request_id;
    std::shared_ptr<SessionClient> to;
    std::function<void(const absl::StatusOr<HandedOver>&)> done;
  };

  // The hand-over thread.
  void HandOverAll() ABSL_LOCKS_EXCLUDED(mutex_) {
    while (true) {
      HandOverJob job;
      bool stopping = false;
      {
        MutexLock lock(&mutex_);
        while (hand_overs_.empty() && !stopping_) {
          wake_.WaitUntil(&mutex_, absl::Now() + kIdleWait);
        }
        stopping = stopping_;
        if (hand_overs_.empty()) return;
        job = std::move(hand_overs_.front());
        hand_overs_.pop_front();
      }
      job.done(stopping ? absl::CancelledError("the router is stopping")
                        : MoveState(job));
    }
  }

  absl::StatusOr<HandedOver> MoveState(const HandOverJob& job) {
    // A call that has ended since, or was cancelled, has nothing to move.
    if (!calls_->Contains(job.request_id)) {
      return absl::NotFoundError(
          absl::StrCat("no request ", job.request_id, " runs any more"));
    }
    StateQuery query;
    query.hand_over_request_id = job.request_id;
    SY_ASSIGN_OR_RETURN(
        const StateMoved moved,
        sessions_->Move(query, job.to.get(),
                        absl::Now() + options_.hand_over_timeout));
    return HandedOver{.num_tokens = moved.num_tokens, .bytes = moved.bytes};
  }

  // The poll thread.
  void Poll() ABSL_LOCKS_EXCLUDED(mutex_) {
    while (true) {
      absl::StatusOr<AttentionWorkerInfo> info = Ask(/*wait_for_ready=*/false);
      TakeAnswer(info);
      if (absl::IsUnavailable(info.status())) {
        // That one failed at once and brought the reason. This one lasts until
        // there is a connection, and drives the attempts: without a call gRPC
        // looks at a lost connection every 100 ms only.
        info = Ask(/*wait_for_ready=*/true);
        if (info.ok()) TakeAnswer(info);
        // Time has gone by; the reason may be another one now.
        if (absl::IsDeadlineExceeded(info.status())) continue;
      }
      MutexLock lock(&mutex_);
      const bool loading = info_.state == AttentionWorkerInfo::State::kLoading;
      const absl::Time next =
          absl::Now() + (loading ? std::min(options_.poll_interval,
                                            options_.loading_poll_interval)
                                 : options_.poll_interval);
      while (!stopping_ && !ask_now_ && wake_.WaitUntil(&mutex_, next)) {
      }
      ask_now_ = false;
      if (stopping_) return;
    }
  }

  // CANCELLED: the client is being destroyed.
  absl::StatusOr<AttentionWorkerInfo> Ask(bool wait_for_ready)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    grpc::ClientContext context;
    context.set_wait_for_ready(wait_for_ready);
    context.set_deadline(
        absl::ToChronoTime(absl::Now() + options_.poll_timeout));
    {
      MutexLock lock(&mutex_);
      if (stopping_) return absl::CancelledError("stopping");
      poll_context_ = &context;
    }
    v1::WorkerInfo reply;
    const grpc::Status status =
        stub_->GetWorkerInfo(&context, v1::GetWorkerInfoRequest(), &reply);
    {
      MutexLock lock(&mutex_);
      poll_context_ = nullptr;
    }
    if (!status.ok()) return rpc::FromGrpcStatus(status);
    return AttentionWorkerInfoFromProto(reply);
  }

  void TakeAnswer(const absl::StatusOr<AttentionWorkerInfo>& info)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    if (!ShouldMove(info)) return;
    for (const auto& listener : calls_->Listeners()) listener->OnMoveAdvised();
  }

  // Takes what the worker said, or that it said nothing. True if its requests
  // should go elsewhere.
  bool ShouldMove(const absl::StatusOr<AttentionWorkerInfo>& info)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    const absl::Time now = absl::Now();
    if (info.ok()) {
      last_answer_ = now;
      info_ = *info;
      return info_.state == AttentionWorkerInfo::State::kDraining;
    }
    const absl::Duration silence = now - last_answer_;
    const bool only_slow = absl::IsDeadlineExceeded(info.status()) &&
                           silence < options_.unreachable_after;
    if (only_slow) {
      info_.silent = silence >= options_.silent_after;
      return info_.silent;
    }
    info_ = AttentionWorkerInfo();
    info_.message = std::string(info.status().message());
    // Calls of a connection that broke end by themselves.
    return true;
  }

  const GrpcAttentionClientOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Generation::Stub> stub_;
  const std::shared_ptr<SessionClient> sessions_;
  const std::shared_ptr<LiveCalls> calls_;

  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool ask_now_ ABSL_GUARDED_BY(mutex_) = false;
  // Of the question in flight; null between questions.
  grpc::ClientContext* poll_context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  AttentionWorkerInfo info_ ABSL_GUARDED_BY(mutex_);
  absl::Time last_answer_ ABSL_GUARDED_BY(mutex_);
  // Of requests that run, so no more than those.
  std::deque<HandOverJob> hand_overs_ ABSL_GUARDED_BY(mutex_);
  std::thread poll_thread_;
  std::thread hand_over_thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionClient>> NewGrpcAttentionClient(
    GrpcAttentionClientOptions options) {
  if (options.address.empty()) {
    return absl::InvalidArgumentError(
        "an attention worker's address is empty; give host:port");
  }
  if (options.poll_interval <= absl::ZeroDuration() ||
      options.loading_poll_interval <= absl::ZeroDuration() ||
      options.poll_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        "poll intervals and poll_timeout must be above 0");
  }
  SY_ASSIGN_OR_RETURN(std::shared_ptr<SessionClient> sessions,
                      SessionClient::Create(options.address));
  return std::unique_ptr<AttentionClient>(
      new GrpcAttentionClient(std::move(options), std::move(sessions)));
}

}  // namespace switchyard::router
