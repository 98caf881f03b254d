// What the service needs of a worker: its engine, once there is one, and what
// it says about itself.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_GENERATION_BACKEND_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_GENERATION_BACKEND_H_

#include "absl/status/statusor.h"
#include "attention_worker/core/engine.h"
#include "attention_worker/core/worker_info.h"

namespace switchyard::attention_worker {

// Thread-safe; must not block.
class GenerationBackend {
 public:
  virtual ~GenerationBackend() = default;

  // Not null; lives as long as this. UNAVAILABLE while loading or draining,
  // with the reason.
  virtual absl::StatusOr<Engine*> engine() const = 0;

  // The same for states that are to be fetched: while it drains, too.
  virtual absl::StatusOr<Engine*> engine_to_leave() const { return engine(); }

  virtual WorkerInfo info() const = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_GENERATION_BACKEND_H_
