// A whole attention worker but its network: checkpoint, experts' clients,
// model, engine.
//
// Above: server.h adds gRPC and HTTP; the one-process server uses this as it
// is. Below: model_stack.h, which puts the parts together.

#ifndef SWITCHYARD_ATTENTION_WORKER_WORKER_H_
#define SWITCHYARD_ATTENTION_WORKER_WORKER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attention_worker/core/generation_backend.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/worker_options.h"

namespace switchyard::attention_worker {

// Life: Create(); StartLoading(), which returns at once and loads in a thread
// of its own ("sy-load"); then kReady or kWaitingExperts; Drain(); the
// destructor stops, and waits for a load in progress. Thread-safe.
class AttentionWorker : public GenerationBackend {
 public:
  using ExpertClients = attention_worker::ExpertClients;
  using MakeExpertClients = attention_worker::MakeExpertClients;
  using Options = AttentionWorkerOptions;

  // INVALID_ARGUMENT: no model directory, or a number that cannot be. What is
  // wrong with the checkpoint comes later, from WaitUntilLoaded() and
  // on_loaded.
  static absl::StatusOr<std::unique_ptr<AttentionWorker>> Create(
      Options options);

  // Once, when everybody who is to see the progress can.
  virtual void StartLoading() = 0;

  // OK once loaded; the loading's error; DEADLINE_EXCEEDED.
  virtual absl::Status WaitUntilLoaded(absl::Time deadline) const = 0;

  // From now on these are the expert workers, instead of those there were
  // (moe/expert_dispatcher.h). Also while loading.
  virtual void SetExpertClients(
      std::vector<std::shared_ptr<ExpertClient>> clients) = 0;

  // Rows of each (layer, expert) since the last call, [L * E]; empty if there
  // were none.
  virtual std::vector<uint32_t> TakeExpertHeat() = 0;

  // Takes no more requests and waits until none is left, or for `deadline`.
  // True if none is left.
  virtual bool Drain(absl::Time deadline) = 0;

  // Fails what is left with UNAVAILABLE. A step in progress ends first: it may
  // be waiting for an expert, for expert_wait_timeout at most. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_WORKER_H_
