// Holds the weights and checks what it is asked; expert_arithmetic.h computes.

#include "experts/expert_engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "experts/expert_arithmetic.h"
#include "kernels/kernel_table.h"
#include "model/weight_names.h"
#include "model/weight_values.h"

namespace switchyard::experts {
namespace {

using model::ExpertWeights;

// Weights between two calls of `progress`.
constexpr int64_t kLoadBytesPerStep = 256 << 20;

int64_t ExpertBytes(const ExpertWeights& weights) {
  return model::WeightBytes(weights.gate_proj) +
         model::WeightBytes(weights.up_proj) +
         model::WeightBytes(weights.down_proj);
}

class ExpertEngineImpl final : public ExpertEngine {
 public:
  explicit ExpertEngineImpl(Options options)
      : checkpoint_(*options.checkpoint),
        config_(options.checkpoint->config()),
        holdings_(std::move(options.experts)),
        pool_(*options.pool),
        kernels_(options.kernels != nullptr ? *options.kernels
                                            : kernels::Kernels()),
        weight_dtype_(checkpoint_.expert_dtype()),
        copy_(model::CopiesWeights(options.weights, checkpoint_)),
        slots_(int64_t{holdings_.num_layers()} * holdings_.num_experts(), -1),
        arithmetic_(IsQuantized(weight_dtype_)
                        ? NewQuantizedArithmetic(config_, kernels_, &pool_)
                        : NewPlainArithmetic(config_, kernels_, &pool_)) {}

  // The steps of Create, in order.
  absl::Status FindWeights();
  absl::Status ReadWeights(
      const std::function<void(int64_t done, int64_t total)>& progress);

  const model::ExpertSet& holdings() const override { return holdings_; }
  int64_t resident_bytes() const override { return resident_bytes_; }
  kernels::DType weight_dtype() const override { return weight_dtype_; }
  absl::Status Compute(const ExpertBatch& batch,
                       absl::Span<float> outputs) override;

 private:
  struct Held {
    int layer;
    int expert;
    ExpertWeights source;   // as the checkpoint has them
    ExpertWeights weights;  // as they are used: the same, or copies
  };

  absl::Status MakeRoom();
  absl::Status ReadExpert(const Held& held) const;
  absl::Status CheckFinite(const Held& held) const;
  absl::Status CheckSizes(const ExpertBatch& batch,
                          absl::Span<float> outputs) const;
  absl::Status CheckRows(const ExpertBatch& batch) const;
  absl::Status CheckRuns(const ExpertBatch& batch) const;
  absl::Status CheckHeld(const ExpertBatch& batch) const;
  int Slot(int layer, int expert) const {
    return slots_[int64_t{layer} * config_.num_experts + expert];
  }

  const model::Checkpoint& checkpoint_;
  const model::ModelConfig& config_;
  const model::ExpertSet holdings_;
  ComputePool& pool_;
  const kernels::KernelTable& kernels_;
  const kernels::DType weight_dtype_;
  const bool copy_;
  std::unique_ptr<model::WeightCopies> copies_;  // null: mapped
  std::vector<Held> held_;
  std::vector<int> slots_;  // [num_layers, E]: index into held_, or -1
  int64_t resident_bytes_ = 0;
  const std::unique_ptr<ExpertArithmetic> arithmetic_;
  std::vector<ExpertUnit> units_;  // of the batch in work
};

absl::Status ExpertEngineImpl::FindWeights() {
  if (holdings_.num_layers() != checkpoint_.num_expert_layers() ||
      holdings_.num_experts() != config_.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat(
        "experts to hold are given over ", holdings_.num_layers(),
        " layers of ", holdings_.num_experts(), "; ", checkpoint_.directory(),
        " has ", checkpoint_.num_expert_layers(), " layers of ",
        config_.num_experts));
  }
  for (int layer = 0; layer < holdings_.num_layers(); ++layer) {
    for (int e = 0; e < config_.num_experts; ++e) {
      if (!holdings_.Contains(layer, e)) continue;
      if (!checkpoint_.LayerHasExperts(layer)) {
        return absl::InvalidArgumentError(
            absl::StrCat("layer ", layer, " of ", checkpoint_.directory(),
                         " is dense: there is no expert ", e, " to hold"));
      }
      SY_ASSIGN_OR_RETURN(const ExpertWeights weights,
                          checkpoint_.FindExpert(layer, e));
      for (const auto* view :
           {&weights.gate_proj, &weights.up_proj, &weights.down_proj}) {
        SY_CHECK(IsQuantized(view->dtype) == IsQuantized(weight_dtype_));
      }
      slots_[int64_t{layer} * config_.num_experts + e] =
          static_cast<int>(held_.size());
      held_.push_back({layer, e, weights, weights});
      resident_bytes_ += ExpertBytes(weights);
    }
  }
  return absl::OkStatus();
}

// A place for every expert, the matrices of one side by side.
absl::Status ExpertEngineImpl::MakeRoom() {
  int64_t bytes = 0;
  for (const Held& held : held_) {
    for (const auto* view : {&held.source.gate_proj, &held.source.up_proj,
                             &held.source.down_proj}) {
      bytes += model::WeightCopies::RoomFor(model::WeightBytes(*view));
    }
  }
  SY_ASSIGN_OR_RETURN(copies_,
                      model::WeightCopies::Create(&checkpoint_, bytes));
  for (Held& held : held_) {
    held.weights = {copies_->Place(held.source.gate_proj),
                    copies_->Place(held.source.up_proj),
                    copies_->Place(held.source.down_proj)};
  }
  return copies_->Allocate(&pool_);
}

absl::Status ExpertEngineImpl::ReadExpert(const Held& held) const {
  SY_RETURN_IF_ERROR(checkpoint_.VerifyExpert(held.layer, held.expert));
  if (copies_ != nullptr) {
    copies_->Copy(held.source.gate_proj, held.weights.gate_proj);
    copies_->Copy(held.source.up_proj, held.weights.up_proj);
    copies_->Copy(held.source.down_proj, held.weights.down_proj);
  }
  return CheckFinite(held);
}

absl::Status ExpertEngineImpl::CheckFinite(const Held& held) const {
  const model::ExpertNames names =
      model::SeparateExpertNames(config_, held.layer, held.expert);
  for (const auto& [name, view] :
       {std::pair(&names.gate_proj, &held.weights.gate_proj),
        std::pair(&names.up_proj, &held.weights.up_proj),
        std::pair(&names.down_proj, &held.weights.down_proj)}) {
    if (const int64_t bad = model::CountNonFinite(*view); bad > 0) {
      return absl::DataLossError(absl::StrCat(
          checkpoint_.directory(), ": ", bad, " weights of ", *name,
          " are NaN or infinite: the file is damaged; "
          "fetch it again"));
    }
  }
  return absl::OkStatus();
}

absl::Status ExpertEngineImpl::ReadWeights(
    const std::function<void(int64_t done, int64_t total)>& progress) {
  const int64_t n = static_cast<int64_t>(held_.size());
  if (n == 0) return absl::OkStatus();
  if (copy_) SY_RETURN_IF_ERROR(MakeRoom());
  const int64_t step = std::max<int64_t>(
      pool_.num_threads(),
      kLoadBytesPerStep / std::max<int64_t>(resident_bytes_ / n, 1));
  int64_t done = 0;
  for (int64_t first = 0; first < n; first += step) {
    const int64_t count = std::min(step, n - first);
    std::vector<absl::Status> statuses(count);
    pool_.ParallelFor(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        statuses[i] = ReadExpert(held_[first + i]);
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      SY_RETURN_IF_ERROR(statuses[i]);
      done += ExpertBytes(held_[first + i].weights);
    }
    if (progress) progress(done, resident_bytes_);
  }
  if (copies_ != nullptr) copies_->LogPages("experts");
  return absl::OkStatus();
}

absl::Status ExpertEngineImpl::CheckSizes(const ExpertBatch& batch,
                                          absl::Span<float> outputs) const {
  const int64_t H = config_.hidden_size;
  if (batch.layer < 0 || batch.layer >= holdings_.num_layers()) {
    return absl::InvalidArgumentError(absl::StrCat("expert batch for layer ",
                                                   batch.layer, " of ",
                                                   holdings_.num_layers()));
  }
  SY_RETURN_IF_ERROR(CheckRows(batch));
  SY_RETURN_IF_ERROR(CheckRuns(batch));
  const int64_t room = static_cast<int64_t>(outputs.size());
  if (room % H != 0 || room / H != batch.num_outputs()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert batch of ", batch.num_outputs(),
                     " output rows of ", H, " has room for ", room, " floats"));
  }
  return absl::OkStatus();
}

absl::Status ExpertEngineImpl::CheckRows(const ExpertBatch& batch) const {
  const int64_t H = config_.hidden_size;
  if (batch.quantized.values != nullptr) {
    if (!IsQuantized(weight_dtype_)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "expert batch brings quantised rows, but the experts' weights are ",
          model::DTypeName(weight_dtype_), ": send floats"));
    }
    if (batch.num_rows < 0 || batch.quantized.cols != H) {
      return absl::InvalidArgumentError(absl::StrCat(
          "expert batch of ", batch.num_rows, " quantised rows of ",
          batch.quantized.cols, "; the hidden size is ", H));
    }
    return absl::OkStatus();
  }
  // By division: a peer's num_rows times H could overflow.
  const int64_t floats = static_cast<int64_t>(batch.rows.size());
  if (batch.num_rows < 0 || floats % H != 0 || floats / H != batch.num_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert batch of ", batch.num_rows, " rows of ", H,
                     " brings ", floats, " floats"));
  }
  return absl::OkStatus();
}

absl::Status ExpertEngineImpl::CheckRuns(const ExpertBatch& batch) const {
  int last_expert = -1;
  for (const ExpertRun& run : batch.runs) {
    if (run.expert <= last_expert || run.expert >= config_.num_experts) {
      return absl::InvalidArgumentError(absl::StrCat(
          "expert batch: expert ", run.expert, " after ", last_expert,
          "; runs must be ascending and below ", config_.num_experts));
    }
    last_expert = run.expert;
    int64_t last_row = -1;
    for (int32_t row : run.rows) {
      if (row <= last_row || row >= batch.num_rows) {
        return absl::InvalidArgumentError(absl::StrCat(
            "expert batch: row ", row, " after ", last_row, " for expert ",
            run.expert, "; rows must be ascending and below ", batch.num_rows));
      }
      last_row = row;
    }
  }
  return absl::OkStatus();
}

absl::Status ExpertEngineImpl::CheckHeld(const ExpertBatch& batch) const {
  std::vector<int> missing;
  for (const ExpertRun& run : batch.runs) {
    if (Slot(batch.layer, run.expert) < 0) missing.push_back(run.expert);
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("not held here: layer ", batch.layer,
                                          ", expert ",
                                          model::FormatExpertList(missing)));
}

absl::Status ExpertEngineImpl::Compute(const ExpertBatch& batch,
                                       absl::Span<float> outputs) {
  SY_RETURN_IF_ERROR(CheckSizes(batch, outputs));
  SY_RETURN_IF_ERROR(CheckHeld(batch));
  const ComputePool::Active active(&pool_);
  units_.clear();
  int64_t output_row = 0;
  for (const ExpertRun& run : batch.runs) {
    units_.push_back(
        {&held_[Slot(batch.layer, run.expert)].weights, run.rows, output_row});
    output_row += static_cast<int64_t>(run.rows.size());
  }
  arithmetic_->Compute(batch, units_, outputs.data());
  return absl::OkStatus();
}

}  // namespace

int64_t ExpertBatch::num_outputs() const {
  int64_t count = 0;
  for (const ExpertRun& run : runs) {
    count += static_cast<int64_t>(run.rows.size());
  }
  return count;
}

absl::StatusOr<std::unique_ptr<ExpertEngine>> ExpertEngine::Create(
    Options options) {
  SY_CHECK(options.checkpoint != nullptr);
  SY_CHECK(options.pool != nullptr);
  const auto progress = options.progress;
  auto engine = std::make_unique<ExpertEngineImpl>(std::move(options));
  SY_RETURN_IF_ERROR(engine->FindWeights());
  SY_RETURN_IF_ERROR(engine->ReadWeights(progress));
  return engine;
}

}  // namespace switchyard::experts
