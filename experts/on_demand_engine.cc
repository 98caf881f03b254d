#include "experts/on_demand_engine.h"

#include <utility>

#include "base/status_macros.h"

namespace switchyard::experts {

OnDemandEngine::OnDemandEngine(Options options,
                               std::unique_ptr<ExpertEngine> engine)
    : options_(std::move(options)), engine_(std::move(engine)) {}

absl::StatusOr<std::unique_ptr<OnDemandEngine>> OnDemandEngine::Create(
    Options options) {
  ExpertEngine::Options none;
  none.checkpoint = options.checkpoint;
  none.experts = model::ExpertSet(options.experts.num_layers(),
                                  options.experts.num_experts());
  none.pool = options.pool;
  none.weights = model::WeightPlacement::kMap;
  none.room = options.experts.size();
  SY_ASSIGN_OR_RETURN(std::unique_ptr<ExpertEngine> engine,
                      ExpertEngine::Create(std::move(none)));
  return std::unique_ptr<OnDemandEngine>(
      new OnDemandEngine(std::move(options), std::move(engine)));
}

absl::Status OnDemandEngine::Compute(const ExpertBatch& batch,
                                     absl::Span<float> outputs) {
  missing_.clear();
  for (const ExpertRun& run : batch.runs) {
    const bool known =
        batch.layer >= 0 && batch.layer < options_.experts.num_layers() &&
        run.expert >= 0 && run.expert < options_.experts.num_experts() &&
        options_.experts.Contains(batch.layer, run.expert);
    // What is not there at all the engine refuses, by name.
    if (known && !engine_->Holds(batch.layer, run.expert)) {
      missing_.push_back({batch.layer, run.expert});
    }
  }
  if (!missing_.empty()) {
    for (const absl::Status& status : engine_->Load(missing_, &reading_)) {
      SY_RETURN_IF_ERROR(status);
    }
    if (options_.on_read) {
      for (const Pair& pair : missing_) options_.on_read(pair);
    }
  }
  return engine_->Compute(batch, outputs);
}

}  // namespace switchyard::experts
