// A TokenSink whose record outlives it, and that a test can wait for.

#ifndef SWITCHYARD_TESTS_TESTING_RECORDING_SINK_H_
#define SWITCHYARD_TESTS_TESTING_RECORDING_SINK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attention_worker/core/engine.h"
#include "base/check.h"
#include "base/mutex.h"

namespace switchyard::testing {

// What a request was told. Thread-safe.
class TokenRecord {
 public:
  // Waits at most a minute of real time.
  bool WaitUntilDone() {
    return WaitUntil(
        [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return done_; });
  }
  bool WaitForTokens(size_t n) {
    return WaitUntil([this, n]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return tokens_.size() >= n;
    });
  }

  bool done() const {
    MutexLock lock(&mutex_);
    return done_;
  }
  std::vector<attention_worker::GeneratedToken> tokens() const {
    MutexLock lock(&mutex_);
    return tokens_;
  }
  std::vector<int32_t> ids() const {
    MutexLock lock(&mutex_);
    std::vector<int32_t> ids;
    for (const auto& token : tokens_) ids.push_back(token.token.id);
    return ids;
  }
  // REQUIRES: done.
  absl::Status status() const {
    MutexLock lock(&mutex_);
    SY_CHECK(done_);
    return status_;
  }
  attention_worker::FinishReason reason() const {
    MutexLock lock(&mutex_);
    SY_CHECK(done_);
    return reason_;
  }
  attention_worker::GenerationUsage usage() const {
    MutexLock lock(&mutex_);
    SY_CHECK(done_);
    return usage_;
  }

 private:
  friend class RecordingSink;

  // `condition` runs under the lock.
  bool WaitUntil(const std::function<bool()>& condition) {
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    MutexLock lock(&mutex_);
    while (!condition()) {
      if (!changed_.WaitUntil(&mutex_, deadline)) return condition();
    }
    return true;
  }

  mutable Mutex mutex_;
  CondVar changed_;
  std::vector<attention_worker::GeneratedToken> tokens_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  attention_worker::FinishReason reason_ ABSL_GUARDED_BY(mutex_) =
      attention_worker::FinishReason::kStop;
  attention_worker::GenerationUsage usage_ ABSL_GUARDED_BY(mutex_);
};

class RecordingSink final : public attention_worker::TokenSink {
 public:
  explicit RecordingSink(std::shared_ptr<TokenRecord> record)
      : record_(std::move(record)) {}

  void OnToken(const attention_worker::GeneratedToken& token) override {
    MutexLock lock(&record_->mutex_);
    SY_CHECK(!record_->done_);
    record_->tokens_.push_back(token);
    record_->changed_.SignalAll();
  }
  void OnDone(const absl::Status& status, attention_worker::FinishReason reason,
              const attention_worker::GenerationUsage& usage) override {
    MutexLock lock(&record_->mutex_);
    SY_CHECK(!record_->done_);
    record_->done_ = true;
    record_->status_ = status;
    record_->reason_ = reason;
    record_->usage_ = usage;
    record_->changed_.SignalAll();
  }

 private:
  const std::shared_ptr<TokenRecord> record_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_RECORDING_SINK_H_
