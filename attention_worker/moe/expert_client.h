// How the attention worker reaches a holder of experts. The dispatcher sees
// only this: behind it is the same process, a gRPC stream, or a fake.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/moe/expert_reply.h"
#include "experts/expert_engine.h"
#include "kernels/quantized.h"
#include "model/expert_set.h"

namespace switchyard::attention_worker {

// One layer-step's rows for one holder. A view, valid until Forward returns:
// clients copy what they keep.
struct ExpertCall {
  int layer = 0;
  int64_t hidden_size = 0;  // H
  int64_t num_rows = 0;     // R, of this call
  // [R]: which of the T rows below are the call's, ascending, without repeats.
  absl::Span<const int32_t> source_rows;
  // The rows of the whole layer-step, [T, H]: as floats, and as the experts'
  // weights take them (kernels::RowFormatOf): quantised (`values` is null if
  // not), or rounded to bf16 (null if not).
  absl::Span<const float> rows;
  kernels::QuantizedRows quantized;
  const uint16_t* rounded = nullptr;
  // Ascending by expert; their rows are in [0, R).
  absl::Span<const experts::ExpertRun> runs;
  absl::Time deadline = absl::InfiniteFuture();

  // Rows of the reply: the sum of the runs' sizes.
  int64_t num_outputs() const {
    int64_t count = 0;
    for (const experts::ExpertRun& run : runs) {
      count += static_cast<int64_t>(run.rows.size());
    }
    return count;
  }
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

  // Of the process behind it, as it said at its last handshake: another one
  // after a restart. Empty: there is only one.
  virtual std::string instance_id() const { return ""; }

  // Why holdings() is empty: OK while connected, else the last error (a refused
  // handshake has both sides' values in the text).
  virtual absl::Status health() const = 0;

  // `listener` is called, from any thread and perhaps before this returns,
  // whenever holdings() changed. Null: nobody; a thread that is about to call
  // the former one may still do so. Must be quick.
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
  virtual void Forward(const ExpertCall& call, Done done) = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_CLIENT_H_
