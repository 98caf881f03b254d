// All experts of a model, each read when a row for it comes first.
//
// Above: an attention worker that computes what no expert worker holds
// (--expert-fallback=local). Below: experts/expert_engine.h holds and computes.

#ifndef SWITCHYARD_EXPERTS_ON_DEMAND_ENGINE_H_
#define SWITCHYARD_EXPERTS_ON_DEMAND_ENGINE_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/compute_pool.h"
#include "experts/expert_engine.h"
#include "model/checkpoint.h"
#include "model/expert_set.h"

namespace switchyard::experts {

// Weights stay in the mapped files, and nothing is read before it is needed:
// until then it costs address space, and afterwards memory that the kernel
// takes back when others want it. One caller at a time.
class OnDemandEngine final : public ExpertEngine {
 public:
  struct Options {
    const model::Checkpoint* checkpoint = nullptr;  // not owned; outlives this
    model::ExpertSet experts;                       // what may be asked for
    ComputePool* pool = nullptr;                    // not owned; outlives this
    // Called with every expert that is read. Null: nobody wants to know.
    std::function<void(const Pair& pair)> on_read;
  };
  // Reads no weights. INVALID_ARGUMENT: as ExpertEngine::Create.
  static absl::StatusOr<std::unique_ptr<OnDemandEngine>> Create(
      Options options);

  // What may be asked for, read or not.
  model::ExpertSet holdings() const override { return options_.experts; }
  // Of what was read.
  int64_t resident_bytes() const override { return engine_->resident_bytes(); }
  int64_t expert_bytes() const override { return engine_->expert_bytes(); }
  kernels::DType weight_dtype() const override {
    return engine_->weight_dtype();
  }
  // Also DATA_LOSS: weights that are not sound, with their tensor's name.
  absl::Status Compute(const ExpertBatch& batch,
                       absl::Span<float> outputs) override;

 private:
  OnDemandEngine(Options options, std::unique_ptr<ExpertEngine> engine);

  const Options options_;
  const std::unique_ptr<ExpertEngine> engine_;
  InlinePool reading_;  // the engine's own must not be used for it
  std::vector<Pair> missing_;
};

}  // namespace switchyard::experts

#endif  // SWITCHYARD_EXPERTS_ON_DEMAND_ENGINE_H_
