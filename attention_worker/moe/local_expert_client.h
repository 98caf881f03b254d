// Experts of this very process: an ExpertEngine behind the ExpertClient
// interface.
//
// Beside: client/grpc_expert_client.h, the same over a network.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_LOCAL_EXPERT_CLIENT_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_LOCAL_EXPERT_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/expert_client_metrics.h"
#include "base/buffer_pool.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "experts/expert_engine.h"
#include "metrics/registry.h"
#include "model/expert_set.h"

namespace switchyard::attention_worker {

// Computes in Forward, on the caller's thread and the engine's pool; callers
// take turns. Where the engine's pool is the step thread's own, only that
// thread may call Forward. Holdings never change. Thread-safe.
class LocalExpertClient final : public ExpertClient {
 public:
  // None is owned; all outlive this.
  LocalExpertClient(experts::ExpertEngine* engine, metrics::Registry* registry,
                    std::string name = "local",
                    const Clock* clock = Clock::Real());

  std::string name() const override { return name_; }
  model::ExpertSet holdings() const override { return engine_holdings_; }
  absl::Status health() const override { return absl::OkStatus(); }
  void SetListener(std::function<void()> listener) override {}
  bool computes_in_forward() const override { return true; }
  void Forward(const ExpertCall& call, Done done) override
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::StatusOr<ExpertReply> Compute(const ExpertCall& call)
      ABSL_LOCKS_EXCLUDED(mutex_);

  const std::string name_;
  const Clock& clock_;
  const model::ExpertSet engine_holdings_;
  ExpertClientMetrics metrics_;
  const std::shared_ptr<BufferPool> buffers_;  // for outputs
  Mutex mutex_;  // held while computing: the engine takes one caller at a time
  experts::ExpertEngine* const engine_ ABSL_PT_GUARDED_BY(mutex_);
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_LOCAL_EXPERT_CLIENT_H_
