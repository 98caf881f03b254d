// Holds the weights and checks what it is asked; expert_arithmetic.h computes.

#include "experts/expert_engine.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/mapped_file.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "experts/expert_arithmetic.h"
#include "experts/expert_slots.h"
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

// What an expert's matrices take in a place of their own.
int64_t RoomFor(const ExpertWeights& weights) {
  return model::WeightCopies::RoomFor(model::WeightBytes(weights.gate_proj)) +
         model::WeightCopies::RoomFor(model::WeightBytes(weights.up_proj)) +
         model::WeightCopies::RoomFor(model::WeightBytes(weights.down_proj));
}

std::unique_ptr<ExpertArithmetic> NewArithmetic(
    kernels::RowFormat format, const model::ModelConfig& config,
    const kernels::KernelTable& kernels, ComputePool* pool) {
  switch (format) {
    case kernels::RowFormat::kBF16:
      return NewBf16Arithmetic(config, kernels, pool);
    case kernels::RowFormat::kI8Group32:
      return NewQuantizedArithmetic(config, kernels, pool);
    case kernels::RowFormat::kF32:
      break;
  }
  return NewPlainArithmetic(config, kernels, pool);
}

class ExpertEngineImpl final : public ExpertEngine {
 public:
  explicit ExpertEngineImpl(Options options)
      : checkpoint_(*options.checkpoint),
        config_(options.checkpoint->config()),
        asked_(std::move(options.experts)),
        room_(options.room),
        pool_(*options.pool),
        kernels_(options.kernels != nullptr ? *options.kernels
                                            : kernels::Kernels()),
        weight_dtype_(checkpoint_.expert_dtype()),
        copy_(model::CopiesWeights(options.weights, checkpoint_)),
        num_layers_(asked_.num_layers()),
        slots_(int64_t{num_layers_} * asked_.num_experts()),
        arithmetic_(NewArithmetic(kernels::RowFormatOf(weight_dtype_), config_,
                                  kernels_, &pool_)) {}

  // The steps of Create, in order.
  absl::Status FindWeights();
  absl::Status ReadWeights(
      const std::function<void(int64_t done, int64_t total)>& progress);
  absl::Status MakeSlots();

  model::ExpertSet holdings() const override ABSL_LOCKS_EXCLUDED(mutex_);
  bool Holds(int layer, int expert) const override ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t resident_bytes() const override { return resident_bytes_; }
  int64_t expert_bytes() const override { return expert_bytes_; }
  kernels::DType weight_dtype() const override { return weight_dtype_; }
  std::vector<absl::Status> Load(absl::Span<const Pair> pairs,
                                 ComputePool* pool) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Drop(const Pair& pair) override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Compute(const ExpertBatch& batch,
                       absl::Span<float> outputs) override
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // In use as long as somebody points at it: a slot, or a batch.
  struct Held {
    int layer = 0;
    int expert = 0;
    ExpertWeights source;           // as the checkpoint has them
    ExpertWeights weights;          // as they are used: the same, or copies
    ExpertSlots* places = nullptr;  // null: the place is nobody else's
    int64_t place = -1;
    std::atomic<int64_t>* loaded = nullptr;  // counted there if not null

    Held(int layer, int expert, const ExpertWeights& source)
        : layer(layer), expert(expert), source(source), weights(source) {}
    ~Held() {
      if (places != nullptr) places->Give(place);
      if (loaded != nullptr) --*loaded;
    }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;
  };

  absl::Status CheckPair(const Pair& pair) const;
  absl::StatusOr<std::shared_ptr<Held>> Find(const Pair& pair) const;
  absl::Status MakeRoom();
  absl::Status ReadExpert(const Held& held) const;
  void Prefetch(const Pair& pair) const ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status LoadOne(const Pair& pair) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status CheckFinite(const Held& held) const;
  absl::Status CheckSizes(const ExpertBatch& batch,
                          absl::Span<float> outputs) const;
  absl::Status CheckRows(const ExpertBatch& batch) const;
  absl::Status CheckRuns(const ExpertBatch& batch) const;
  // Takes hold of the batch's experts, in order.
  absl::Status FindHeld(const ExpertBatch& batch) ABSL_LOCKS_EXCLUDED(mutex_);
  size_t Slot(int layer, int expert) const {
    return static_cast<size_t>(int64_t{layer} * config_.num_experts + expert);
  }
  void Publish(const std::shared_ptr<Held>& held) ABSL_LOCKS_EXCLUDED(mutex_);

  const model::Checkpoint& checkpoint_;
  const model::ModelConfig& config_;
  const model::ExpertSet asked_;
  const int64_t room_;
  ComputePool& pool_;
  const kernels::KernelTable& kernels_;
  const kernels::DType weight_dtype_;
  const bool copy_;
  const int num_layers_;
  int64_t expert_bytes_ = 0;
  std::unique_ptr<model::WeightCopies> copies_;  // null: mapped, or none asked
  std::unique_ptr<ExpertSlots> places_;          // null: no room, or mapped
  std::vector<std::shared_ptr<Held>> initial_;   // of Create, until it is done
  std::atomic<int64_t> resident_bytes_{0};
  std::atomic<int64_t> loaded_{0};  // that Load brought and still take room

  mutable Mutex mutex_;
  // [num_layers, E]; null: not held.
  std::vector<std::shared_ptr<const Held>> slots_ ABSL_GUARDED_BY(mutex_);

  // Of the thread that computes.
  const std::unique_ptr<ExpertArithmetic> arithmetic_;
  std::vector<std::shared_ptr<const Held>> in_work_;
  std::vector<ExpertUnit> units_;
};

absl::Status ExpertEngineImpl::CheckPair(const Pair& pair) const {
  if (pair.layer < 0 || pair.layer >= num_layers_ || pair.expert < 0 ||
      pair.expert >= config_.num_experts) {
    return absl::InvalidArgumentError(
        absl::StrCat(checkpoint_.directory(), " has no expert ", pair.expert,
                     " of layer ", pair.layer));
  }
  if (!checkpoint_.LayerHasExperts(pair.layer)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "layer ", pair.layer, " of ", checkpoint_.directory(),
        " is dense: there is no expert ", pair.expert, " to hold"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<ExpertEngineImpl::Held>> ExpertEngineImpl::Find(
    const Pair& pair) const {
  SY_RETURN_IF_ERROR(CheckPair(pair));
  SY_ASSIGN_OR_RETURN(const ExpertWeights weights,
                      checkpoint_.FindExpert(pair.layer, pair.expert));
  for (const auto* view :
       {&weights.gate_proj, &weights.up_proj, &weights.down_proj}) {
    SY_CHECK(RowFormatOf(view->dtype) == RowFormatOf(weight_dtype_));
  }
  return std::make_shared<Held>(pair.layer, pair.expert, weights);
}

absl::Status ExpertEngineImpl::FindWeights() {
  if (num_layers_ != checkpoint_.num_expert_layers() ||
      asked_.num_experts() != config_.num_experts) {
    return absl::InvalidArgumentError(absl::StrCat(
        "experts to hold are given over ", num_layers_, " layers of ",
        asked_.num_experts(), "; ", checkpoint_.directory(), " has ",
        checkpoint_.num_expert_layers(), " layers of ", config_.num_experts));
  }
  for (int layer = 0; layer < num_layers_; ++layer) {
    for (int e = 0; e < config_.num_experts; ++e) {
      if (!asked_.Contains(layer, e)) continue;
      SY_ASSIGN_OR_RETURN(std::shared_ptr<Held> held, Find({layer, e}));
      resident_bytes_ += ExpertBytes(held->source);
      initial_.push_back(std::move(held));
    }
    if (!checkpoint_.LayerHasExperts(layer) || config_.num_experts == 0) {
      continue;
    }
    // All of a layer are alike.
    SY_ASSIGN_OR_RETURN(const std::shared_ptr<Held> first, Find({layer, 0}));
    expert_bytes_ = std::max(expert_bytes_, RoomFor(first->source));
  }
  return absl::OkStatus();
}

// A place for every expert, the matrices of one side by side.
absl::Status ExpertEngineImpl::MakeRoom() {
  int64_t bytes = 0;
  for (const auto& held : initial_) bytes += RoomFor(held->source);
  SY_ASSIGN_OR_RETURN(copies_,
                      model::WeightCopies::Create(&checkpoint_, bytes));
  for (const auto& held : initial_) {
    held->weights = {copies_->Place(held->source.gate_proj),
                     copies_->Place(held->source.up_proj),
                     copies_->Place(held->source.down_proj)};
  }
  return copies_->Allocate(&pool_);
}

absl::Status ExpertEngineImpl::MakeSlots() {
  if (room_ == 0 || !copy_ || expert_bytes_ == 0) return absl::OkStatus();
  SY_ASSIGN_OR_RETURN(places_, ExpertSlots::Create(expert_bytes_, room_));
  return absl::OkStatus();
}

absl::Status ExpertEngineImpl::ReadExpert(const Held& held) const {
  SY_RETURN_IF_ERROR(checkpoint_.VerifyExpert(held.layer, held.expert));
  for (const auto& [from, to] :
       {std::pair(&held.source.gate_proj, &held.weights.gate_proj),
        std::pair(&held.source.up_proj, &held.weights.up_proj),
        std::pair(&held.source.down_proj, &held.weights.down_proj)}) {
    if (from->data == to->data) continue;
    // Nobody else sees the copy yet.
    checkpoint_.ReadBytes(*from, const_cast<void*>(to->data));
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

void ExpertEngineImpl::Publish(const std::shared_ptr<Held>& held) {
  MutexLock lock(&mutex_);
  slots_[Slot(held->layer, held->expert)] = held;
}

absl::Status ExpertEngineImpl::ReadWeights(
    const std::function<void(int64_t done, int64_t total)>& progress) {
  const int64_t n = static_cast<int64_t>(initial_.size());
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
        statuses[i] = ReadExpert(*initial_[first + i]);
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      SY_RETURN_IF_ERROR(statuses[i]);
      done += ExpertBytes(initial_[first + i]->weights);
    }
    if (progress) progress(done, resident_bytes_);
  }
  if (copies_ != nullptr) copies_->LogPages("experts");
  for (const auto& held : initial_) Publish(held);
  initial_.clear();
  return absl::OkStatus();
}

model::ExpertSet ExpertEngineImpl::holdings() const {
  model::ExpertSet held(num_layers_, asked_.num_experts());
  MutexLock lock(&mutex_);
  for (const auto& expert : slots_) {
    if (expert != nullptr) held.Insert(expert->layer, expert->expert);
  }
  return held;
}

bool ExpertEngineImpl::Holds(int layer, int expert) const {
  if (layer < 0 || layer >= num_layers_ || expert < 0 ||
      expert >= config_.num_experts) {
    return false;
  }
  MutexLock lock(&mutex_);
  return slots_[Slot(layer, expert)] != nullptr;
}

void ExpertEngineImpl::Prefetch(const Pair& pair) const {
  if (Holds(pair.layer, pair.expert)) return;
  const absl::StatusOr<std::shared_ptr<Held>> held = Find(pair);
  if (!held.ok()) return;  // loading it will say why
  const ExpertWeights& source = (*held)->source;
  for (const kernels::WeightView* const view :
       {&source.gate_proj, &source.up_proj, &source.down_proj}) {
    PrefetchMappedPages(view->data, model::WeightBytes(*view));
  }
}

absl::Status ExpertEngineImpl::LoadOne(const Pair& pair) {
  if (Holds(pair.layer, pair.expert)) return absl::OkStatus();
  SY_ASSIGN_OR_RETURN(const std::shared_ptr<Held> held, Find(pair));
  if (++loaded_ > room_) {
    --loaded_;
    return absl::ResourceExhaustedError(
        absl::StrCat("there is room for ", room_,
                     " experts, and as many are held or still in use"));
  }
  held->loaded = &loaded_;
  if (places_ != nullptr) {
    SY_ASSIGN_OR_RETURN(held->place, places_->Take());
    held->places = places_.get();
    uint8_t* to = places_->data(held->place);
    for (kernels::WeightView* const view :
         {&held->weights.gate_proj, &held->weights.up_proj,
          &held->weights.down_proj}) {
      view->data = to;
      to += model::WeightCopies::RoomFor(model::WeightBytes(*view));
    }
  }
  SY_RETURN_IF_ERROR(ReadExpert(*held));
  Publish(held);
  resident_bytes_ += ExpertBytes(held->weights);
  return absl::OkStatus();
}

std::vector<absl::Status> ExpertEngineImpl::Load(absl::Span<const Pair> pairs,
                                                 ComputePool* pool) {
  std::vector<absl::Status> statuses(pairs.size());
  pool->ParallelFor(static_cast<int64_t>(pairs.size()), 1,
                    [&](int64_t begin, int64_t end) {
                      for (int64_t i = begin; i < end; ++i) {
                        // The next one's pages come while this one's are
                        // checked and copied.
                        if (i == begin) Prefetch(pairs[i]);
                        if (i + 1 < end) Prefetch(pairs[i + 1]);
                        statuses[i] = LoadOne(pairs[i]);
                      }
                    });
  return statuses;
}

void ExpertEngineImpl::Drop(const Pair& pair) {
  if (!CheckPair(pair).ok()) return;
  std::shared_ptr<const Held> held;  // let go without the mutex
  {
    MutexLock lock(&mutex_);
    held.swap(slots_[Slot(pair.layer, pair.expert)]);
  }
  if (held != nullptr) resident_bytes_ -= ExpertBytes(held->weights);
}

absl::Status ExpertEngineImpl::CheckSizes(const ExpertBatch& batch,
                                          absl::Span<float> outputs) const {
  const int64_t H = config_.hidden_size;
  if (batch.layer < 0 || batch.layer >= num_layers_) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expert batch for layer ", batch.layer, " of ", num_layers_));
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
  if (batch.rounded != nullptr) {
    if (RowFormatOf(weight_dtype_) != kernels::RowFormat::kBF16) {
      return absl::InvalidArgumentError(absl::StrCat(
          "expert batch brings rows in bf16, but the experts' weights are ",
          model::DTypeName(weight_dtype_), ": send floats"));
    }
    if (batch.num_rows >= 0) return absl::OkStatus();
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

absl::Status ExpertEngineImpl::FindHeld(const ExpertBatch& batch) {
  std::vector<int> missing;
  in_work_.clear();
  {
    MutexLock lock(&mutex_);
    for (const ExpertRun& run : batch.runs) {
      const auto& held = slots_[Slot(batch.layer, run.expert)];
      if (held == nullptr) missing.push_back(run.expert);
      in_work_.push_back(held);
    }
  }
  if (missing.empty()) return absl::OkStatus();
  in_work_.clear();
  return absl::NotFoundError(absl::StrCat("not held here: layer ", batch.layer,
                                          ", expert ",
                                          model::FormatExpertList(missing)));
}

absl::Status ExpertEngineImpl::Compute(const ExpertBatch& batch,
                                       absl::Span<float> outputs) {
  SY_RETURN_IF_ERROR(CheckSizes(batch, outputs));
  SY_RETURN_IF_ERROR(FindHeld(batch));
  const ComputePool::Active active(&pool_);
  units_.clear();
  int64_t output_row = 0;
  for (size_t i = 0; i < batch.runs.size(); ++i) {
    const ExpertRun& run = batch.runs[i];
    units_.push_back({&in_work_[i]->weights, run.rows, output_row});
    output_row += static_cast<int64_t>(run.rows.size());
  }
  arithmetic_->Compute(batch, units_, outputs.data());
  in_work_.clear();
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
  SY_RETURN_IF_ERROR(engine->MakeSlots());
  SY_RETURN_IF_ERROR(engine->ReadWeights(progress));
  return engine;
}

}  // namespace switchyard::experts
