// What every layer is given, and how layers share out work over threads.
//
// No layer's result depends on the number of threads: work is split by output
// element, and each element is computed whole, in one order, by one thread.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_LAYER_CONTEXT_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_LAYER_CONTEXT_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/layers/probe.h"
#include "attention_worker/layers/scratch.h"
#include "attention_worker/layers/step_timer.h"
#include "attention_worker/state/kv_layout.h"
#include "base/compute_pool.h"
#include "kernels/kernel_table.h"
#include "kernels/matrix.h"
#include "model/config.h"

namespace switchyard::attention_worker {

// Nothing is owned; everything outlives the call that it is given to.
struct LayerContext {
  const model::ModelConfig* config = nullptr;
  const kernels::KernelTable* kernels = nullptr;
  ComputePool* pool = nullptr;
  Scratch* scratch = nullptr;
  Probe probe;                 // null: none
  StepTimer* timer = nullptr;  // null: nobody asks

  void Report(const char* point, int layer, int64_t rows, int64_t width,
              const float* data) const {
    if (probe) probe(point, layer, rows, width, data);
  }
};

// The rows of one sequence in a step, as one layer sees them.
struct LayerSequence {
  int64_t first_row = 0;
  int64_t num_rows = 0;                          // >= 1
  int64_t first_position = 0;                    // of first_row's token
  absl::Time deadline = absl::InfiniteFuture();  // for missing experts
  // Full attention: the layer's keys and values of the earlier tokens, and room
  // for these rows'.
  KvLayer kv;
  // Linear attention: [nv, dk, dv] and [K - 1, channels], as the tokens before
  // first_position left them.
  float* recurrent = nullptr;
  float* conv_tail = nullptr;
  // Drafted tokens (state/sequence_state.h). The last so many rows leave
  // recurrent and conv_tail alone; what they bring is kept in draft_rows
  // [provisional_rows, conv_channels + gate_floats]. There also lies what
  // pending_rows earlier tokens brought: those before first_position, which
  // recurrent and conv_tail lack and take in first.
  int64_t provisional_rows = 0;  // [0, num_rows)
  int64_t pending_rows = 0;
  float* draft_rows = nullptr;
  // Copies of both on the way, as they are after so many of the rows.
  struct LayerSnapshot {
    int64_t after_rows = 0;  // [1, num_rows], ascending
    float* recurrent = nullptr;
    float* conv_tail = nullptr;
  };
  absl::Span<const LayerSnapshot> snapshots;
};

// Multiply-adds below which a piece of work is not split further: about ten
// microseconds, twice what waking a sleeping thread costs.
inline constexpr int64_t kMinWork = int64_t{64} * 1024;

// Calls body(begin, end) over [0, items), each of which costs about
// `cost_per_item` multiply-adds. What is not worth waking a thread for runs on
// the caller.
void ForEach(const LayerContext& context, int64_t items, int64_t cost_per_item,
             absl::FunctionRef<void(int64_t begin, int64_t end)> body);

// y[t] = rms(x[t]) * (1 + weight) for [rows, n]; y may be x.
void ZeroCentredRmsNorm(const LayerContext& context, const float* x,
                        absl::Span<const float> weight, int64_t rows, float* y);

// x[i] += y[i] for [rows, n].
void AddRows(const LayerContext& context, const float* y, int64_t rows,
             int64_t n, float* x);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_LAYER_CONTEXT_H_
