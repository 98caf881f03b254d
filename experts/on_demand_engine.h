// All experts of a model, each read when a row for it comes.
//
// Above: an attention worker that computes what no expert worker holds
// (--expert-fallback=local), or that has more experts than memory
// (--experts-memory). Below: experts/expert_engine.h holds and computes.

#ifndef SWITCHYARD_EXPERTS_ON_DEMAND_ENGINE_H_
#define SWITCHYARD_EXPERTS_ON_DEMAND_ENGINE_H_

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/compute_pool.h"
#include "experts/expert_engine.h"
#include "model/checkpoint.h"
#include "model/expert_set.h"

namespace switchyard::experts {

// Nothing is read before it is needed. What was read stays: in the mapped
// files, as memory that the kernel takes back when others want it; or, within a
// budget, in memory of this process, until the least recently used has to make
// room. A batch of more experts than that is computed in parts, with the same
// bits. One caller at a time.
class OnDemandEngine final : public ExpertEngine {
 public:
  struct Options {
    const model::Checkpoint* checkpoint = nullptr;  // not owned; outlives this
    model::ExpertSet experts;                       // what may be asked for
    ComputePool* pool = nullptr;                    // not owned; outlives this
    // For experts in memory of this process; 0: in the mapped files.
    int64_t memory_bytes = 0;
    // Reads several at a time if given, which disks want; another one than
    // `pool`. Not owned; outlives this.
    ComputePool* reading_pool = nullptr;
    // Called with every expert that is read. Null: nobody wants to know.
    std::function<void(const Pair& pair)> on_read = nullptr;
    // Called after each batch: experts that were there, those that had to be
    // read, and how long that took. Null: nobody wants to know.
    std::function<void(int64_t hits, int64_t reads, absl::Duration reading)>
        on_batch = nullptr;
  };
  // Reads no weights. INVALID_ARGUMENT: as ExpertEngine::Create; or memory for
  // fewer experts than a token goes through.
  static absl::StatusOr<std::unique_ptr<OnDemandEngine>> Create(
      Options options);

  // Experts that the memory has room for.
  int64_t room() const { return room_; }
  // What may be asked for, read or not.
  model::ExpertSet holdings() const override { return options_.experts; }
  // Of what is there.
  int64_t resident_bytes() const override { return engine_->resident_bytes(); }
  int64_t expert_bytes() const override { return engine_->expert_bytes(); }
  kernels::DType weight_dtype() const override {
    return engine_->weight_dtype();
  }
  // Also DATA_LOSS: weights that are not sound, with their tensor's name.
  absl::Status Compute(const ExpertBatch& batch,
                       absl::Span<float> outputs) override;

 private:
  OnDemandEngine(Options options, std::unique_ptr<ExpertEngine> engine,
                 int64_t room);

  bool MayBeAsked(const Pair& pair) const;
  // Sees to it that these are there, at the cost of others.
  absl::Status Bring(int layer, absl::Span<const ExpertRun> runs);
  void MakeRoom(int64_t count);

  const Options options_;
  const std::unique_ptr<ExpertEngine> engine_;
  const int64_t room_;
  InlinePool inline_;  // if there is no reading_pool
  // What is there, last used first.
  std::list<Pair> used_;
  absl::flat_hash_map<Pair, std::list<Pair>::iterator> places_;
  int64_t hits_ = 0;  // of this batch
  int64_t reads_ = 0;
  absl::Duration reading_;
  std::vector<Pair> missing_;
};

}  // namespace switchyard::experts

#endif  // SWITCHYARD_EXPERTS_ON_DEMAND_ENGINE_H_
