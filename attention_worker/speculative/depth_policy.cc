#include "attention_worker/speculative/depth_policy.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <queue>
#include <utility>

#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// Steps of more sequences are held to cost as steps of so many.
constexpr int64_t kMostSequences = 64;
// The newest measurement's weight in a moving average.
constexpr double kWeight = 1.0 / 8;
// A measurement counts for no more than so many times what was expected: a
// machine that stood still for a moment says nothing of rows.
constexpr double kOutlier = 3;
// The least that a row costs, of a step.
constexpr double kLeastRow = 0.01;
// A row must bring so much more than it costs: a wrong decision against drafts
// loses little, one for them may lose much.
constexpr double kMargin = 1.05;
// Steps between two that are there to measure what is not chosen. If they
// confirm the choice, the next comes after twice as many.
constexpr int64_t kFirstProbe = 16;
constexpr int64_t kLastProbe = 256;

// Of decisions, for whether drafts pay at all.
constexpr double kDecisionWeight = 1.0 / 32;
constexpr double kPays = 0.2;
constexpr int64_t kWatchedSequences = 16;

}  // namespace

void DepthPolicy::Average::Add(double value) {
  if (!measured_) {
    measured_ = true;
    value_ = value;
    return;
  }
  value_ += kWeight * (std::min(value, kOutlier * value_) - value_);
}

DepthPolicy::Cost& DepthPolicy::CostOf(int64_t sequences) {
  return costs_[std::min(sequences, kMostSequences)];
}

void DepthPolicy::ObserveStep(int64_t sequences, int64_t draft_rows,
                              absl::Duration duration) {
  SY_CHECK(sequences >= 1 && draft_rows >= 0);
  const double seconds = absl::ToDoubleSeconds(duration);
  if (!(seconds > 0)) return;
  Cost& cost = CostOf(sequences);
  if (draft_rows == 0) {
    cost.plain.Add(seconds);
  } else if (cost.plain.measured()) {
    // A row is never free, whatever a noisy clock says.
    const double least = kLeastRow * cost.plain.value();
    cost.verify_row.Add(std::max(least, (seconds - cost.plain.value()) /
                                            static_cast<double>(draft_rows)));
  }
}

void DepthPolicy::ObserveDrafting(int64_t sequences, int64_t draft_rows,
                                  absl::Duration duration) {
  SY_CHECK(sequences >= 1 && draft_rows >= 1);
  CostOf(sequences).draft_row.Add(absl::ToDoubleSeconds(duration) /
                                  static_cast<double>(draft_rows));
}

const DepthPolicy::Cost* DepthPolicy::Nearest(int64_t sequences) const {
  const Cost* nearest = nullptr;
  int64_t distance = 0;
  for (const auto& [measured, cost] : costs_) {
    if (!cost.measured()) continue;
    const int64_t away = std::abs(measured - sequences);
    if (nearest != nullptr && away >= distance) continue;
    nearest = &cost;
    distance = away;
  }
  return nearest;
}

std::vector<int> DepthPolicy::Best(
    absl::Span<const Acceptance* const> sequences, int64_t together,
    const Cost& cost) const {
  std::vector<int> depths(sequences.size(), 0);
  double tokens = static_cast<double>(together);
  double seconds = cost.plain.value();
  // The best next row of all sequences, as long as it pays. A chain's later
  // rows are never better than its earlier ones.
  std::priority_queue<std::pair<double, size_t>> next;  // chance, sequence
  for (size_t i = 0; i < sequences.size(); ++i) {
    next.emplace(sequences[i]->rate(0), i);
  }
  while (!next.empty()) {
    const auto [chance, i] = next.top();
    next.pop();
    if (chance * seconds < kMargin * cost.row() * tokens) break;
    tokens += chance;
    seconds += cost.row();
    if (++depths[i] < options_.max_depth) {
      next.emplace(chance * sequences[i]->rate(depths[i]), i);
    }
  }
  return depths;
}

std::vector<int> DepthPolicy::Choose(
    absl::Span<const Acceptance* const> sequences, int64_t together) {
  SY_CHECK(together >= static_cast<int64_t>(sequences.size()));
  std::vector<int> none(sequences.size(), 0);
  if (sequences.empty() || options_.max_depth == 0) return none;
  std::vector<int> all(sequences.size(), options_.max_depth);
  if (!options_.adaptive) return all;
  const auto decide = [this](std::vector<int> depths) {
    const bool drafts = std::any_of(depths.begin(), depths.end(),
                                    [](int depth) { return depth > 0; });
    drafting_ += kDecisionWeight * ((drafts ? 1.0 : 0.0) - drafting_);
    return depths;
  };
  Cost& cost = CostOf(together);
  // What was never measured is, one thing after the other; beside what another
  // load suggests.
  if (!cost.plain.measured()) return decide(none);
  if (!cost.measured()) {
    const Cost* const other = Nearest(together);
    // Not in every step: with prompts beside, none of them can be measured.
    if (cost.steps++ % kFirstProbe == 0) return all;
    return decide(other == nullptr ? none : Best(sequences, together, *other));
  }
  const std::vector<int> best = decide(Best(sequences, together, cost));
  if (cost.next_probe == 0) cost.next_probe = kFirstProbe;
  if (++cost.steps < cost.next_probe) return best;
  cost.steps = 0;
  cost.next_probe = std::min(2 * cost.next_probe, kLastProbe);
  // Out of turn: the other way. One row each is what it would begin with.
  return best == none ? std::vector<int>(sequences.size(), 1) : none;
}

bool DepthPolicy::Admit() {
  if (!options_.adaptive || drafting_ > kPays) return true;
  if (++refused_ < kWatchedSequences) return false;
  refused_ = 0;
  return true;
}

}  // namespace switchyard::attention_worker
