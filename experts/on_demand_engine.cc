#include "experts/on_demand_engine.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "model/weight_copies.h"
#include "model/weight_values.h"

namespace switchyard::experts {
namespace {

// Bytes of the largest expert in a place of its own; all of a layer are alike.
absl::StatusOr<int64_t> LargestExpert(const model::Checkpoint& checkpoint,
                                      const model::ExpertSet& experts) {
  int64_t largest = 0;
  for (int layer = 0; layer < checkpoint.num_expert_layers(); ++layer) {
    if (!checkpoint.LayerHasExperts(layer) || experts.num_experts() == 0) {
      continue;
    }
    SY_ASSIGN_OR_RETURN(const model::ExpertWeights weights,
                        checkpoint.FindExpert(layer, 0));
    int64_t bytes = 0;
    for (const auto* view :
         {&weights.gate_proj, &weights.up_proj, &weights.down_proj}) {
      bytes += model::WeightCopies::RoomFor(model::WeightBytes(*view));
    }
    largest = std::max(largest, bytes);
  }
  return largest;
}

}  // namespace

OnDemandEngine::OnDemandEngine(Options options,
                               std::unique_ptr<ExpertEngine> engine,
                               int64_t room)
    : options_(std::move(options)), engine_(std::move(engine)), room_(room) {}

absl::StatusOr<std::unique_ptr<OnDemandEngine>> OnDemandEngine::Create(
    Options options) {
  int64_t room = options.experts.size();
  if (options.memory_bytes > 0) {
    SY_ASSIGN_OR_RETURN(const int64_t expert_bytes,
                        LargestExpert(*options.checkpoint, options.experts));
    const int64_t fit =
        options.memory_bytes / std::max<int64_t>(expert_bytes, 1);
    const int needed = options.checkpoint->config().num_experts_per_tok;
    if (fit < needed) {
      return absl::InvalidArgumentError(absl::StrCat(
          "memory of ", options.memory_bytes, " bytes holds ", fit,
          " experts of ", expert_bytes, " bytes; a token goes through ", needed,
          " in each layer: give ", needed * expert_bytes, " bytes or more"));
    }
    room = std::min(room, fit);
  }
  ExpertEngine::Options none;
  none.checkpoint = options.checkpoint;
  none.experts = model::ExpertSet(options.experts.num_layers(),
                                  options.experts.num_experts());
  none.pool = options.pool;
  none.weights = options.memory_bytes > 0 ? model::WeightPlacement::kCopy
                                          : model::WeightPlacement::kMap;
  none.room = room;
  SY_ASSIGN_OR_RETURN(std::unique_ptr<ExpertEngine> engine,
                      ExpertEngine::Create(std::move(none)));
  return std::unique_ptr<OnDemandEngine>(
      new OnDemandEngine(std::move(options), std::move(engine), room));
}

bool OnDemandEngine::MayBeAsked(const Pair& pair) const {
  return pair.layer >= 0 && pair.layer < options_.experts.num_layers() &&
         pair.expert >= 0 && pair.expert < options_.experts.num_experts() &&
         options_.experts.Contains(pair.layer, pair.expert);
}

void OnDemandEngine::MakeRoom(int64_t count) {
  while (!used_.empty() && static_cast<int64_t>(used_.size()) + count > room_) {
    engine_->Drop(used_.back());
    places_.erase(used_.back());
    used_.pop_back();
  }
}

absl::Status OnDemandEngine::Bring(int layer,
                                   absl::Span<const ExpertRun> runs) {
  missing_.clear();
  for (const ExpertRun& run : runs) {
    const Pair pair = {layer, run.expert};
    if (const auto found = places_.find(pair); found != places_.end()) {
      used_.splice(used_.begin(), used_, found->second);
      ++hits_;
    } else if (MayBeAsked(pair)) {
      // What is not there at all the engine refuses, by name.
      missing_.push_back(pair);
    }
  }
  if (missing_.empty()) return absl::OkStatus();
  const absl::Time start = absl::Now();
  MakeRoom(static_cast<int64_t>(missing_.size()));
  ComputePool* const pool =
      options_.reading_pool != nullptr ? options_.reading_pool : &inline_;
  const std::vector<absl::Status> statuses = engine_->Load(missing_, pool);
  reading_ += absl::Now() - start;
  absl::Status failure;
  for (size_t i = 0; i < missing_.size(); ++i) {
    if (!statuses[i].ok()) {
      failure.Update(statuses[i]);
      continue;
    }
    ++reads_;
    used_.push_front(missing_[i]);
    places_[missing_[i]] = used_.begin();
    if (options_.on_read) options_.on_read(missing_[i]);
  }
  return failure;
}

absl::Status OnDemandEngine::Compute(const ExpertBatch& batch,
                                     absl::Span<float> outputs) {
  hits_ = reads_ = 0;
  reading_ = absl::ZeroDuration();
  const auto tell = [this](absl::Status status) {
    if (options_.on_batch) options_.on_batch(hits_, reads_, reading_);
    return status;
  };
  // Most batches are one part, an empty one too.
  const auto part_size = static_cast<size_t>(std::max<int64_t>(room_, 1));
  if (batch.runs.size() <= part_size) {
    absl::Status status = Bring(batch.layer, batch.runs);
    if (status.ok()) status = engine_->Compute(batch, outputs);
    return tell(std::move(status));
  }
  size_t output = 0;
  for (size_t first = 0; first < batch.runs.size(); first += part_size) {
    ExpertBatch part = batch;
    part.runs = batch.runs.subspan(first, part_size);
    const auto floats = static_cast<size_t>(
        part.num_outputs() * options_.checkpoint->config().hidden_size);
    if (floats > outputs.size() - output) {
      return tell(absl::InvalidArgumentError(absl::StrCat(
          "expert batch of ", batch.num_outputs(), " output rows has room for ",
          outputs.size(), " floats")));
    }
    absl::Status status = Bring(batch.layer, part.runs);
    if (status.ok()) {
      status = engine_->Compute(part, outputs.subspan(output, floats));
    }
    if (!status.ok()) return tell(std::move(status));
    output += floats;
  }
  return tell(absl::OkStatus());
}

}  // namespace switchyard::experts
