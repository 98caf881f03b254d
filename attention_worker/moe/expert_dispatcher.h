// Sends one layer-step's (row, expert) pairs to whoever holds the experts, and
// brings back one vector per pair.
//
// Promise 3 begins here: pairs whose holder dies are sent again as soon as any
// holder of that expert is known; pairs without a holder wait until their
// sequence's deadline. Calls that take long go to a second holder, holders that
// are slow or hang are left alone until they have recovered, and answers of two
// holders to the same row are compared (docs/decisions/0053, 0054).

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_DISPATCHER_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_DISPATCHER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/holder_health.h"
#include "attention_worker/moe/reply_pump.h"
#include "base/clock.h"
#include "base/compute_pool.h"
#include "kernels/matrix.h"
#include "kernels/quantized.h"
#include "metrics/registry.h"
#include "model/expert_set.h"

namespace switchyard::attention_worker {

// T rows, each with its K chosen experts.
struct DispatchRequest {
  int layer = 0;
  int64_t num_rows = 0;          // T
  int experts_per_row = 0;       // K
  int64_t hidden_size = 0;       // H
  absl::Span<const float> rows;  // [T, H]
  // The same rows, quantised; `values` is null if the caller has not done that.
  kernels::QuantizedRows quantized;
  // The same for bf16: null if the caller has not rounded them.
  const uint16_t* rounded = nullptr;
  absl::Span<const int32_t> experts;  // [T, K]; no repeats within a row
  // Which sequence of the step a row belongs to, in [0, S): rows of one
  // sequence fail together.
  absl::Span<const int32_t> sequence_of_row;  // [T]
  absl::Span<const absl::Time> deadlines;     // [S]
};

// A view, valid until the next Dispatch.
struct DispatchResult {
  // [T, K]: where pair (t, k)'s expert output of H floats lies, as it came.
  // Null, or without meaning, for rows of a failed sequence.
  absl::Span<const float* const> outputs;
  // OK, or why this sequence's pairs are not all there: DEADLINE_EXCEEDED
  // naming the layer and the missing experts (and each unreachable holder's
  // error); or a holder's own error where sending again cannot help (INTERNAL,
  // INVALID_ARGUMENT).
  absl::Span<const absl::Status> sequence_status;  // [S]
  // Time that the experts' holders computed, as they say: of the one that
  // computed longest.
  absl::Duration compute_time;
};

class ExpertDispatcher {
 public:
  virtual ~ExpertDispatcher() = default;

  // Blocks until every pair is answered or its sequence has failed. Between
  // sending and waiting it runs `overlap` once (the shared expert).
  // One caller at a time (the step thread).
  virtual DispatchResult Dispatch(const DispatchRequest& request,
                                  absl::FunctionRef<void()> overlap) = 0;

  // From now on these are the clients; none at all is allowed. It takes effect
  // at once, also for a dispatch that waits. What a removed client has in
  // flight is still accepted; it gets nothing new, and its listener is taken
  // away. A client whose name one before it had keeps that one's record of
  // failures. Thread-safe, but not from a client's callbacks.
  // REQUIRES: distinct names, no null; no other dispatcher has them.
  //
  // A removed client is let go of here, or if a dispatch was using it, by the
  // next call of this or of MissingExperts: its destructor may take a while,
  // and never runs on the dispatching thread.
  virtual void SetClients(
      std::vector<std::shared_ptr<ExpertClient>> clients) = 0;

  // (layer, expert) pairs that nobody reachable holds, for readiness and logs.
  // Thread-safe, but not from a client's callbacks.
  virtual model::ExpertSet MissingExperts() const = 0;
};

// Another way to choose the holder of (layer, expert): an index into
// `holders`, which has at least one element: indices into the present clients,
// ascending. Called on the dispatching thread.
using HolderPolicy =
    std::function<size_t(int layer, int expert, absl::Span<const int> holders)>;

// The first: the order of the clients is the order of preference.
size_t FirstHolder(int layer, int expert, absl::Span<const int> holders);

struct ExpertDispatcherOptions {
  // The first ones; SetClients changes them. Their SetListener is called here,
  // and when they go. They may call back after the dispatcher is gone (a late
  // reply): that is dropped.
  std::vector<std::shared_ptr<ExpertClient>> clients;
  // Every (layer, expert) pair of the model.
  model::ExpertSet required;
  // Null: by when they would be through (moe/holder_choice.h).
  HolderPolicy policy;
  // Of all clients that have one, those that come later too; null if none has.
  // The dispatching thread polls it while it waits.
  std::shared_ptr<ReplyPump> pump;
  // All times are this clock's, those given to the pump and the requests'
  // deadlines too. Not owned; outlives the clients.
  const Clock* clock = Clock::Real();
  // What calls carry, beside floats: what the experts' weights take.
  kernels::RowFormat row_format = kernels::RowFormat::kF32;
  // Not owned; outlives the clients.
  metrics::Registry* registry = nullptr;
  // Of the dispatching thread, not owned: its threads sleep while a dispatch
  // waits for replies. Null: none.
  ComputePool* pool = nullptr;

  // How long one dispatch may wait, for an expert that nobody holds or for a
  // holder that does not answer; a sequence's own deadline may come earlier.
  absl::Duration max_wait = absl::InfiniteDuration();
  // How long a holder that failed a call gets no more, unless its holdings
  // change: doubles from min to max with every failure in a row.
  absl::Duration min_backoff = absl::Milliseconds(5);
  absl::Duration max_backoff = absl::Milliseconds(250);
  // A layer-step's rows for one holder go in one call, unless its outputs would
  // take more than this; then so many calls are in flight at a time. Calls that
  // compute in Forward travel nowhere, and are the faster the larger.
  int64_t max_call_output_bytes = int64_t{4} << 20;
  int64_t max_own_call_output_bytes = int64_t{32} << 20;
  int max_calls_in_flight = 4;

  // A call that takes longer than one in twenty usually does is sent to another
  // holder, too: not before min_hedge_delay, and at most hedge_burst +
  // hedge_share * calls of them.
  bool hedging = true;
  double hedge_share = 0.05;
  double hedge_burst = 4;
  absl::Duration min_hedge_delay = absl::Microseconds(500);
  // When a holder is slow or hangs, and what it takes to get rows again.
  HolderHealthOptions health;
  absl::Duration probe_timeout = absl::Seconds(1);

  // Asked for what no live client holds; null: nobody. Does not count in
  // MissingExperts. Must compute in Forward.
  std::shared_ptr<ExpertClient> fallback;

  // Of each expert's rows in a step, with this probability: two holders compute
  // them, and if their answers differ, a third one decides. 0 to 1.
  double verify_fraction = 0;
  uint64_t seed = 0;  // of what is verified

  // What a dispatcher that is made wrong on purpose does wrong: the simulation
  // must notice.
  struct Faults {
    bool ignore_changed_holdings = false;
    bool unlimited_hedges = false;
    bool believe_first_answer = false;
  };
  Faults faults;
};

std::unique_ptr<ExpertDispatcher> NewExpertDispatcher(
    ExpertDispatcherOptions options);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_EXPERT_DISPATCHER_H_
