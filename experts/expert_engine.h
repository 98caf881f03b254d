// Some experts of a model, computed: rows in, one output row per (row, expert).
// The core of the expert worker, and of an attention worker that runs its
// experts in process.
//
// Below: experts/expert_ffn.h does the arithmetic of one expert.
// Not here: gRPC, protobuf, flags, placement.

#ifndef SWITCHYARD_EXPERTS_EXPERT_ENGINE_H_
#define SWITCHYARD_EXPERTS_EXPERT_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/compute_pool.h"
#include "kernels/kernel_table.h"
#include "kernels/quantized.h"
#include "model/checkpoint.h"
#include "model/expert_set.h"
#include "model/weight_copies.h"

namespace switchyard::experts {

// The rows that go through one expert. R = number of distinct input rows.
struct ExpertRun {
  int expert = 0;
  std::vector<int32_t> rows;  // each in [0, R), ascending
};

// One layer-step's work for one holder.
struct ExpertBatch {
  int layer = 0;
  int64_t num_rows = 0;              // R
  absl::Span<const float> rows;      // [R, H], not owned
  absl::Span<const ExpertRun> runs;  // ascending by expert, no repeats
  // [R, H], not owned, as KernelTable::quantize_row makes them; then `rows` may
  // be empty. values == nullptr: not given. Only for quantised weights
  // (ExpertEngine::weight_dtype()); the results' bits are those of the floats.
  kernels::QuantizedRows quantized = {};
  // The same for weights that take bf16 (kernels::RowFormatOf): [R, H], as
  // KernelTable::round_to_bf16 makes them; null: not given.
  const uint16_t* rounded = nullptr;

  // Output rows: the sum of all runs' sizes.
  int64_t num_outputs() const;
};

class ExpertEngine {
 public:
  struct Options {
    const model::Checkpoint* checkpoint = nullptr;  // not owned; outlives this
    model::ExpertSet experts;                       // what to hold
    ComputePool* pool = nullptr;                    // not owned; outlives this
    // Null: kernels::Kernels(). Every table gives the same bits.
    const kernels::KernelTable* kernels = nullptr;
    // Called now and then during Create with bytes done and in all.
    std::function<void(int64_t done, int64_t total)> progress;
    model::WeightPlacement weights = model::WeightPlacement::kAuto;
    // Pairs that Load() may bring beside `experts`; their memory is taken as
    // they come, and kept for others when they go.
    int64_t room = 0;
  };

  // One expert of one layer.
  struct Pair {
    int layer = 0;
    int expert = 0;
    friend bool operator==(const Pair&, const Pair&) = default;
    template <typename H>
    friend H AbslHashValue(H hash, const Pair& pair) {
      return H::combine(std::move(hash), pair.layer, pair.expert);
    }
  };

  // Reads every page of the experts it is to hold, so that the first request is
  // not the one that waits for the disk: into memory of its own, or where they
  // are mapped.
  // INVALID_ARGUMENT: `experts` is over other layers or experts than the
  // checkpoint's, or names one of a dense layer. DATA_LOSS: a NaN or infinite
  // weight, with its tensor's name, or another checksum than the manifest's.
  // RESOURCE_EXHAUSTED: no memory for copies.
  static absl::StatusOr<std::unique_ptr<ExpertEngine>> Create(Options options);
  virtual ~ExpertEngine() = default;

  // What is held now. Thread-safe, like Holds, resident_bytes, Load and Drop.
  virtual model::ExpertSet holdings() const = 0;
  virtual bool Holds(int layer, int expert) const {
    return holdings().Contains(layer, expert);
  }
  virtual int64_t resident_bytes() const = 0;

  // Brings more experts (pairs that differ), beside batches that are being
  // computed, with the threads of `pool`, which must not be the engine's own.
  // Each is held from the moment that it has been read and found sound. One
  // status for each: those of Create, RESOURCE_EXHAUSTED where there is no room
  // left, OK for what is held already. One caller at a time. An engine may be
  // of fixed experts: UNIMPLEMENTED.
  virtual std::vector<absl::Status> Load(absl::Span<const Pair> pairs,
                                         ComputePool* pool) {
    return std::vector<absl::Status>(
        pairs.size(), absl::UnimplementedError("these experts are fixed"));
  }
  // No batch from now on finds the expert; one that is being computed keeps it
  // until it is done. Nothing happens if it is not held. The memory of what
  // Load brought is there for others; that of Create's is not.
  virtual void Drop(const Pair& pair) {}
  // What one (layer, expert) takes, at most.
  virtual int64_t expert_bytes() const { return 0; }

  // Of every expert's matrices: Checkpoint::expert_dtype().
  virtual kernels::DType weight_dtype() const = 0;

  // outputs [num_outputs, H]: run after run, row after row within a run, each
  // the expert's unweighted output. An output row's bits depend on its input
  // row and the expert's weights alone. NOT_FOUND names the (layer, expert)
  // pairs that are not held; INVALID_ARGUMENT for sizes that do not fit. Then
  // nothing was computed. One caller at a time.
  virtual absl::Status Compute(const ExpertBatch& batch,
                               absl::Span<float> outputs) = 0;
};

}  // namespace switchyard::experts

#endif  // SWITCHYARD_EXPERTS_EXPERT_ENGINE_H_
