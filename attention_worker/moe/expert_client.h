// How the attention worker reaches a holder of experts. The dispatcher sees
// only this: behind it is the same process, a gRPC stream, or a fake.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "experts/expert_engine.h"
#include "model/expert_set.h"

namespace switchyard::attention_worker {

// One layer-step's rows for one holder, owned. The same shapes as
// experts::ExpertBatch.
struct ExpertCall {
  int layer = 0;
  int64_t num_rows = 0;                  // R
  std::vector<float> rows;               // [R, H]
  std::vector<experts::ExpertRun> runs;  // ascending by expert
  absl::Time deadline = absl::InfiniteFuture();
};

struct ExpertReply {
  std::vector<float>
      outputs;  // [sum of run sizes, H], as ExpertEngine::Compute
  absl::Duration compute_time;  // that the holder says it took to compute them
};

// One holder. Thread-safe.
class ExpertClient {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<ExpertReply>) &&>;

  virtual ~ExpertClient() = default;

  // For messages and metric labels: "local", or the worker's address.
  virtual std::string name() const = 0;

  // What the holder said at its last handshake; empty while it is not reachable
  // or was refused.
  virtual model::ExpertSet holdings() const = 0;

  // Why holdings() is empty: OK while connected, else the last error (a refused
  // handshake has both sides' values in the text).
  virtual absl::Status health() const = 0;

  // `listener` is called, from any thread and perhaps before this returns,
  // whenever holdings() changed. Set once, before the first Forward. Must be
  // quick.
  virtual void SetListener(std::function<void()> listener) = 0;

  // Most rows (ExpertCall::num_rows) that one call may have; callers cut larger
  // ones. At least 1.
  virtual int64_t max_call_rows() const {
    return std::numeric_limits<int64_t>::max();
  }

  // True: Forward computes on the caller's thread, so whoever has several
  // clients calls this one last, while the others' rows are on their way.
  virtual bool computes_in_forward() const { return false; }

  // Later calls `done` once, perhaps before returning, from any thread. Calls
  // are pure functions, so a failed one may be sent again, here or elsewhere.
  // UNAVAILABLE: the holder is gone, or went while the call was in flight.
  // DEADLINE_EXCEEDED: soon after call.deadline at the latest.
  // NOT_FOUND: it does not hold one of the experts (its holdings changed).
  // RESOURCE_EXHAUSTED: its queue is full.
  virtual void Forward(ExpertCall call, Done done) = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_H_
