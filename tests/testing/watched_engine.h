// An Engine that passes everything on, and lets a test wait for requests to
// end.

#ifndef SWITCHYARD_TESTS_TESTING_WATCHED_ENGINE_H_
#define SWITCHYARD_TESTS_TESTING_WATCHED_ENGINE_H_

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attention_worker/core/engine.h"
#include "base/mutex.h"

namespace switchyard::testing {

// Thread-safe.
class WatchedEngine final : public attention_worker::Engine {
 public:
  explicit WatchedEngine(std::unique_ptr<attention_worker::Engine> engine)
      : record_(std::make_shared<Record>()), engine_(std::move(engine)) {}

  // How the engine ended the request of that id; nullopt if it did not within
  // a minute.
  std::optional<absl::Status> WaitForEnd(const std::string& id) {
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    MutexLock lock(&record_->mutex);
    while (record_->ended.count(id) == 0) {
      if (!record_->changed.WaitUntil(&record_->mutex, deadline)) {
        return std::nullopt;
      }
    }
    return record_->ended[id];
  }

  absl::Status Submit(
      attention_worker::GenerationRequest request,
      std::unique_ptr<attention_worker::TokenSink> sink) override {
    auto watched =
        std::make_unique<WatchedSink>(request.id, record_, std::move(sink));
    return engine_->Submit(std::move(request), std::move(watched));
  }
  void Cancel(const std::string& id) override { engine_->Cancel(id); }
  absl::Status FlushCache() override { return engine_->FlushCache(); }
  attention_worker::EngineLoad load() const override { return engine_->load(); }
  void BetweenSteps(Task task) override {
    engine_->BetweenSteps(std::move(task));
  }
  const attention_worker::StateShape& state_shape() const override {
    return engine_->state_shape();
  }
  void Stop() override { engine_->Stop(); }

 private:
  struct Record {
    Mutex mutex;
    CondVar changed;
    std::map<std::string, absl::Status> ended ABSL_GUARDED_BY(mutex);
  };

  class WatchedSink final : public attention_worker::TokenSink {
   public:
    WatchedSink(std::string id, std::shared_ptr<Record> record,
                std::unique_ptr<attention_worker::TokenSink> sink)
        : id_(std::move(id)),
          record_(std::move(record)),
          sink_(std::move(sink)) {}
    void OnBegin() override { sink_->OnBegin(); }
    void OnToken(const attention_worker::GeneratedToken& token) override {
      sink_->OnToken(token);
    }
    void OnDone(const absl::Status& status,
                attention_worker::FinishReason reason,
                const attention_worker::GenerationUsage& usage) override {
      sink_->OnDone(status, reason, usage);
      MutexLock lock(&record_->mutex);
      record_->ended[id_] = status;
      record_->changed.SignalAll();
    }

   private:
    const std::string id_;
    const std::shared_ptr<Record> record_;
    const std::unique_ptr<attention_worker::TokenSink> sink_;
  };

  const std::shared_ptr<Record> record_;
  const std::unique_ptr<attention_worker::Engine> engine_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_WATCHED_ENGINE_H_
