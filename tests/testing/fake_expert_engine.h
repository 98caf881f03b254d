// An ExpertEngine without weights, and a real expert worker's service over it.

#ifndef SWITCHYARD_TESTS_TESTING_FAKE_EXPERT_ENGINE_H_
#define SWITCHYARD_TESTS_TESTING_FAKE_EXPERT_ENGINE_H_

#include <cstdint>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "experts/expert_engine.h"
#include "model/expert_set.h"

namespace switchyard::testing {

// Computes FakeExpertRow (fake_expert_client.h); can be told to wait or to
// fail. Its controls are thread-safe.
class FakeExpertEngine final : public experts::ExpertEngine {
 public:
  explicit FakeExpertEngine(model::ExpertSet holdings)
      : holdings_(std::move(holdings)) {}
  ~FakeExpertEngine() override { Release(); }

  // From now on Compute waits until Release.
  void Hold() ABSL_LOCKS_EXCLUDED(mutex_);
  void Release() ABSL_LOCKS_EXCLUDED(mutex_);
  // Waits until a Compute is held; false if `deadline` came first.
  bool WaitUntilHeld(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);
  // The next Compute fails.
  void FailNext(absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);
  int num_batches() const ABSL_LOCKS_EXCLUDED(mutex_);

  model::ExpertSet holdings() const override { return holdings_; }
  int64_t resident_bytes() const override { return 0; }
  kernels::DType weight_dtype() const override { return kernels::DType::kF32; }
  absl::Status Compute(const experts::ExpertBatch& batch,
                       absl::Span<float> outputs) override
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const model::ExpertSet holdings_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status failure_ ABSL_GUARDED_BY(mutex_);
  int num_batches_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_FAKE_EXPERT_ENGINE_H_
