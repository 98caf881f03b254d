#include "switchyard/bench/serving/stream.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"

namespace switchyard::bench {

using attention_worker::Engine;
using attention_worker::FinishReason;
using attention_worker::GeneratedToken;
using attention_worker::GenerationRequest;
using attention_worker::GenerationUsage;

// Holds the stream as long as the engine may speak.
class Stream::Sink final : public attention_worker::TokenSink {
 public:
  explicit Sink(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {}

  void OnToken(const GeneratedToken& token) override {
    const absl::Time now = absl::Now();
    MutexLock lock(&stream_->mutex_);
    stream_->result_.ids.push_back(token.token.id);
    stream_->result_.times.push_back(now);
    stream_->changed_.SignalAll();
  }

  void OnDone(const absl::Status& status, FinishReason reason,
              const GenerationUsage& usage) override {
    MutexLock lock(&stream_->mutex_);
    stream_->done_ = true;
    stream_->status_ = status;
    stream_->result_.usage = usage;
    stream_->changed_.SignalAll();
  }

 private:
  const std::shared_ptr<Stream> stream_;
};

absl::StatusOr<std::shared_ptr<Stream>> Stream::Submit(
    Engine* engine, GenerationRequest request) {
  std::shared_ptr<Stream> stream(new Stream());
  {
    MutexLock lock(&stream->mutex_);
    stream->result_.submitted = absl::Now();
  }
  SY_RETURN_IF_ERROR(
      engine->Submit(std::move(request), std::make_unique<Sink>(stream)));
  return stream;
}

// The engine ends every request at its deadline, and a request with missing
// experts at that step's: both waits end by it.
void Stream::WaitForTokens(int64_t tokens) const {
  const absl::Time give_up = absl::Now() + 2 * kStreamDeadline;
  MutexLock lock(&mutex_);
  while (!done_ && static_cast<int64_t>(result_.ids.size()) < tokens &&
         absl::Now() < give_up) {
    changed_.WaitUntil(&mutex_, give_up);
  }
}

absl::StatusOr<StreamResult> Stream::Wait() const {
  const absl::Time give_up = absl::Now() + 2 * kStreamDeadline;
  MutexLock lock(&mutex_);
  while (!done_ && absl::Now() < give_up) changed_.WaitUntil(&mutex_, give_up);
  if (!done_) {
    return absl::DeadlineExceededError(
        absl::StrCat("a request did not end within ",
                     absl::FormatDuration(2 * kStreamDeadline)));
  }
  SY_RETURN_IF_ERROR(status_);
  return result_;
}

StreamResult Stream::SoFar() const {
  MutexLock lock(&mutex_);
  return result_;
}

absl::StatusOr<std::vector<StreamResult>> WaitForAll(
    const std::vector<std::shared_ptr<Stream>>& streams) {
  std::vector<StreamResult> results;
  absl::Status first_error;
  for (const auto& stream : streams) {
    absl::StatusOr<StreamResult> result = stream->Wait();
    if (result.ok()) {
      results.push_back(*std::move(result));
    } else if (first_error.ok()) {
      first_error = result.status();
    }
  }
  SY_RETURN_IF_ERROR(first_error);
  return results;
}

GenerationRequest NewRequest(std::vector<int32_t> prompt, int64_t max_tokens) {
  static std::atomic<int64_t> number{0};
  GenerationRequest request;
  request.id = absl::StrCat("bench-", ++number);
  request.prompt_ids = std::move(prompt);
  request.max_tokens = max_tokens;
  request.deadline = absl::Now() + kStreamDeadline;
  return request;
}

}  // namespace switchyard::bench
