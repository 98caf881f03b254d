#include "attention_worker/service/generate_stream.h"

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "attention_worker/service/generation_codec.h"
#include "base/mutex.h"
#include "rpc/status_conversion.h"

namespace switchyard::attention_worker {
namespace {

class FailedStream final : public GenerateReactor {
 public:
  explicit FailedStream(const absl::Status& status) {
    Finish(rpc::ToGrpcStatus(status));
  }
  void OnDone() override { delete this; }
};

// Two kinds of thread meet here: the step thread pushes (through StreamSink)
// and gRPC's threads report. What is to be done next is decided under mutex_,
// and done after it was released, as the last thing that a method does: once
// Finish() was called, OnDone() may delete the reactor at any moment.
class GenerateStream final : public GenerateReactor {
 public:
  GenerateStream(Engine* engine, std::string id, size_t max_pending)
      : engine_(engine), id_(std::move(id)), max_pending_(max_pending) {}

  // The step thread, or (before the reactor is returned) the submitting one.
  void Push(v1::GenerateReply reply) ABSL_LOCKS_EXCLUDED(mutex_) {
    Action action = Action::kNothing;
    {
      MutexLock lock(&mutex_);
      if (!broken_.ok()) return;
      if (pending_.size() >= max_pending_) {
        BreakLocked(absl::ResourceExhaustedError(absl::StrCat(
            "the client reads more slowly than tokens come: ", pending_.size(),
            " replies waited")));
        action = Action::kCancel;
      } else {
        pending_.push_back(std::move(reply));
        action = NextLocked();
      }
    }
    Do(action);
  }

  // The last word. `final_reply` is sent before a good end.
  void End(const absl::Status& status,
           std::optional<v1::GenerateReply> final_reply)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    Action action = Action::kNothing;
    {
      MutexLock lock(&mutex_);
      if (broken_.ok() && final_reply.has_value()) {
        pending_.push_back(*std::move(final_reply));
      }
      end_ = broken_.ok() ? status : broken_;
      action = NextLocked();
    }
    // With a write under way the rest is up to OnWriteDone(), and the stream
    // may be gone by now.
    if (action != Action::kNothing) Do(action);
  }

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mutex_) {
    Action action = Action::kNothing;
    {
      MutexLock lock(&mutex_);
      writing_ = false;
      if (!ok && broken_.ok()) {
        BreakLocked(absl::CancelledError("the client is gone"));
        action = end_.has_value() ? NextLocked() : Action::kCancel;
      } else {
        action = NextLocked();
      }
    }
    Do(action);
  }

  // The client cancelled, its connection broke, or its deadline came.
  void OnCancel() override ABSL_LOCKS_EXCLUDED(mutex_) {
    Action action = Action::kNothing;
    {
      MutexLock lock(&mutex_);
      if (broken_.ok()) {
        BreakLocked(absl::CancelledError("the client is gone"));
        // After the last word the id may be another request's already.
        if (!end_.has_value()) action = Action::kCancel;
      }
    }
    Do(action);
  }

  void OnDone() override { delete this; }

 private:
  enum class Action { kNothing, kWrite, kFinish, kCancel };

  // Nothing more is sent; the engine's last word is still waited for.
  void BreakLocked(const absl::Status& status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    broken_ = status;
    pending_.clear();
  }

  Action NextLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return Action::kNothing;
    if (!pending_.empty()) {
      current_ = std::move(pending_.front());
      pending_.pop_front();
      writing_ = true;
      return Action::kWrite;
    }
    if (!end_.has_value()) return Action::kNothing;
    finished_ = true;
    return Action::kFinish;
  }

  void Do(Action action) ABSL_NO_THREAD_SAFETY_ANALYSIS {
    switch (action) {
      case Action::kNothing:
        return;
      case Action::kWrite:
        // Nobody touches current_ before OnWriteDone.
        StartWrite(&current_);
        return;
      case Action::kFinish:
        // Set before finished_ was, and never again.
        Finish(rpc::ToGrpcStatus(*end_));
        return;
      case Action::kCancel:
        engine_->Cancel(id_);
        return;
    }
  }

  Engine* const engine_;
  const std::string id_;
  const size_t max_pending_;

  Mutex mutex_;
  std::deque<v1::GenerateReply> pending_ ABSL_GUARDED_BY(mutex_);
  v1::GenerateReply current_ ABSL_GUARDED_BY(mutex_);  // or gRPC's: see Do()
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status broken_ ABSL_GUARDED_BY(mutex_);  // why nothing more is sent
  std::optional<absl::Status> end_ ABSL_GUARDED_BY(mutex_);
};

// Owned by the engine; the stream outlives its last word.
class StreamSink final : public TokenSink {
 public:
  StreamSink(GenerateStream* stream, std::unique_ptr<RequestTrace> trace,
             const Clock* clock)
      : stream_(stream), trace_(std::move(trace)), clock_(clock) {}

  void OnBegin() override {
    if (trace_ != nullptr) trace_->Begin(clock_->Now());
  }
  void OnToken(const GeneratedToken& token) override {
    stream_->Push(TokenToProto(token));
  }
  void OnDone(const absl::Status& status, FinishReason reason,
              const GenerationUsage& usage) override {
    if (trace_ != nullptr) trace_->Done(status, usage, clock_->Now());
    std::optional<v1::GenerateReply> finished;
    if (status.ok()) finished = FinishedToProto(reason, usage);
    stream_->End(status, std::move(finished));
  }

 private:
  GenerateStream* const stream_;
  const std::unique_ptr<RequestTrace> trace_;
  const Clock* const clock_;
};

}  // namespace

GenerateReactor* NewGenerateStream(Engine* engine, GenerationRequest request,
                                   size_t max_pending_replies,
                                   std::unique_ptr<RequestTrace> trace,
                                   const Clock* clock) {
  auto* stream = new GenerateStream(engine, request.id, max_pending_replies);
  // gRPC keeps what is started before the reactor is returned until it is.
  const absl::Status status = engine->Submit(
      std::move(request),
      std::make_unique<StreamSink>(stream, std::move(trace), clock));
  if (!status.ok()) stream->End(status, std::nullopt);
  return stream;
}

GenerateReactor* NewFailedStream(const absl::Status& status) {
  return new FailedStream(status);
}

}  // namespace switchyard::attention_worker
