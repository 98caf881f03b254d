// An AttentionClient without a worker: a test says what it is and what it
// answers.

#ifndef SWITCHYARD_TESTS_TESTING_FAKE_ATTENTION_CLIENT_H_
#define SWITCHYARD_TESTS_TESTING_FAKE_ATTENTION_CLIENT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "router/client/attention_client.h"

namespace switchyard::testing {

// A working client: request `r` gets the tokens Answer(r) one after another,
// from the caller's thread, and then OnDone(OK, kLength), unless the test says
// how many tokens come before a failure or holds requests back. Thread-safe.
class FakeAttentionClient final : public router::AttentionClient {
 public:
  explicit FakeAttentionClient(std::string name) : name_(std::move(name)) {
    info_.state = router::AttentionWorkerInfo::State::kReady;
    info_.model_fingerprint = "abc";
    info_.vocab_size = 1000;
    info_.max_model_len = 4096;
  }

  // The output token at `position` of any request of this vocabulary.
  static int32_t TokenAt(int64_t position) {
    return static_cast<int32_t>((position * 37 + 11) % 1000);
  }

  void SetInfo(router::AttentionWorkerInfo info) {
    MutexLock lock(&mutex_);
    info_ = std::move(info);
  }
  // The next request ends with `status` after `tokens` tokens.
  void FailNextAfter(int64_t tokens, absl::Status status) {
    MutexLock lock(&mutex_);
    fail_after_ = tokens;
    failure_ = std::move(status);
  }
  // From now on requests wait for Cancel().
  void Hold() {
    MutexLock lock(&mutex_);
    holding_ = true;
  }
  std::vector<router::TokenRequest> requests() const {
    MutexLock lock(&mutex_);
    return requests_;
  }

  std::string name() const override { return name_; }
  router::AttentionWorkerInfo info() const override {
    MutexLock lock(&mutex_);
    return info_;
  }

  void Generate(router::TokenRequest request,
                std::shared_ptr<router::TokenListener> listener) override {
    int64_t fail_after = -1;
    absl::Status failure;
    {
      MutexLock lock(&mutex_);
      requests_.push_back(request);
      if (holding_) {
        held_.emplace(request.id, std::move(listener));
        return;
      }
      std::swap(fail_after, fail_after_);
      failure = failure_;
    }
    Answer(request, fail_after, failure, listener.get());
  }

  void Cancel(const std::string& request_id) override {
    std::shared_ptr<router::TokenListener> listener;
    {
      MutexLock lock(&mutex_);
      const auto it = held_.find(request_id);
      if (it == held_.end()) return;
      listener = std::move(it->second);
      held_.erase(it);
    }
    listener->OnDone(absl::CancelledError("cancelled"),
                     router::TokenFinish::kStop, {});
  }

 private:
  static void Answer(const router::TokenRequest& request, int64_t fail_after,
                     const absl::Status& failure,
                     router::TokenListener* listener) {
    const int64_t prompt = static_cast<int64_t>(request.prompt_ids.size());
    int64_t output = static_cast<int64_t>(request.resumed_output_ids.size());
    for (int64_t sent = 0; output < request.max_tokens; ++sent, ++output) {
      if (sent == fail_after) {
        listener->OnDone(failure, router::TokenFinish::kStop, {});
        return;
      }
      router::TokenEvent event;
      event.position = prompt + output;
      event.id = TokenAt(event.position);
      listener->OnToken(event);
    }
    router::TokenUsage usage;
    usage.prompt_tokens = prompt;
    usage.output_tokens = output;
    listener->OnDone(absl::OkStatus(), router::TokenFinish::kLength, usage);
  }

  const std::string name_;
  mutable Mutex mutex_;
  router::AttentionWorkerInfo info_ ABSL_GUARDED_BY(mutex_);
  int64_t fail_after_ ABSL_GUARDED_BY(mutex_) = -1;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<router::TokenRequest> requests_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<router::TokenListener>> held_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_FAKE_ATTENTION_CLIENT_H_
