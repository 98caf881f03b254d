// A real expert worker's service and queue over a fake engine, in this process.

#ifndef SWITCHYARD_TESTS_TESTING_FAKE_EXPERT_WORKER_H_
#define SWITCHYARD_TESTS_TESTING_FAKE_EXPERT_WORKER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "base/buffer_pool.h"
#include "expert_worker/service/compute_queue.h"
#include "expert_worker/service/expert_metrics.h"
#include "expert_worker/service/expert_service.h"
#include "metrics/registry.h"
#include "model/expert_set.h"
#include "rpc/server.h"
#include "tests/testing/fake_expert_engine.h"

namespace switchyard::testing {

// Listens from construction to Kill or destruction.
class FakeExpertWorker {
 public:
  struct Options {
    expert_worker::WorkerIdentity identity = {.model_fingerprint = "f00d",
                                              .instance_id = "fake",
                                              .num_layers = 3,
                                              .num_experts = 16,
                                              .hidden_size = 8,
                                              .max_rows_in_flight = 64};
    model::ExpertSet holdings;  // default: all
    int port = 0;
    int64_t max_queue_bytes = 1 << 20;
    int64_t max_batch_outputs = 4096;
    expert_worker::ConnectionOptions connection;
    std::string host = "127.0.0.1";  // or unix:/path
    bool serving = true;             // false: loading, until SetServing
  };

  explicit FakeExpertWorker(Options options);
  ~FakeExpertWorker() { Kill(); }

  int port() const { return server_->port(); }
  std::string address() const;
  model::ExpertSet holdings() const { return engine_.holdings(); }
  FakeExpertEngine& engine() { return engine_; }
  expert_worker::ExpertService& service() { return service_; }
  expert_worker::ExpertMetrics& metrics() { return metrics_; }

  void SetServing();
  // Cuts all streams at once, and stops listening. Held computations go on, and
  // their outcomes get nowhere.
  void Kill();

 private:
  const Options options_;
  const std::unique_ptr<metrics::Registry> registry_;
  expert_worker::ExpertMetrics metrics_;
  const std::shared_ptr<BufferPool> buffers_ = BufferPool::Create(1 << 20);
  FakeExpertEngine engine_;
  expert_worker::ComputeQueue queue_;
  expert_worker::ExpertService service_;
  std::unique_ptr<rpc::Server> server_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_FAKE_EXPERT_WORKER_H_
