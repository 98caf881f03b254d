#include "attention_worker/moe/latency_model.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// A class's median moves by this share with every sample, up or down; by more
// while it has few.
constexpr double kMedianStep = 0.05;
constexpr double kFirstSteps = 0.5;
constexpr int kEnough = 4;
// The tail goes up by nineteen parts or down by one: at rest, one in twenty is
// above it.
constexpr double kTailStep = 0.01;
constexpr double kPairsOfACall = 2;
constexpr double kMinTail = 1.2;
constexpr double kMaxTail = 20;

int ClassOf(int64_t pairs) {
  return std::bit_width(static_cast<uint64_t>(pairs)) - 1;
}

// The mean of a class's numbers of pairs.
double PairsOf(int index) {
  return 1.5 * static_cast<double>(int64_t{1} << index) - 0.5;
}

// How the time of so many pairs compares with a class's, if nothing nearer is
// known: a call costs as much as some pairs by itself.
double Guess(double pairs, int index) {
  return (kPairsOfACall + pairs) / (kPairsOfACall + PairsOf(index));
}

}  // namespace

void LatencyModel::Observe(int64_t pairs, absl::Duration latency) {
  SY_DCHECK(pairs > 0);
  const double seconds = std::max(1e-9, absl::ToDoubleSeconds(latency));
  if (known()) {
    const double ratio = seconds / absl::ToDoubleSeconds(Typical(pairs));
    tail_ =
        std::clamp(tail_ * (ratio > tail_ ? 1 + 19 * kTailStep : 1 - kTailStep),
                   kMinTail, kMaxTail);
  }
  Class& mine = classes_[std::min(ClassOf(pairs), kClasses - 1)];
  if (mine.samples == 0) {
    mine.seconds = seconds;
  } else {
    const double step = 1 + std::max(kMedianStep, kFirstSteps / mine.samples);
    // Never beyond the sample.
    mine.seconds = seconds > mine.seconds
                       ? std::min(seconds, mine.seconds * step)
                       : std::max(seconds, mine.seconds / step);
  }
  ++mine.samples;
  ++samples_;
}

bool LatencyModel::Knows(int64_t pairs) const {
  return classes_[std::min(ClassOf(pairs), kClasses - 1)].samples >= kEnough;
}

absl::Duration LatencyModel::Typical(int64_t pairs) const {
  SY_DCHECK(known() && pairs > 0);
  const auto x = static_cast<double>(pairs);
  int below = -1;
  int above = -1;
  for (int i = 0; i < kClasses; ++i) {
    if (classes_[i].samples == 0) continue;
    if (PairsOf(i) <= x) {
      below = i;
    } else {
      above = i;
      break;
    }
  }
  if (below < 0)
    return absl::Seconds(classes_[above].seconds * Guess(x, above));
  const double low = classes_[below].seconds;
  if (above < 0) return absl::Seconds(low * Guess(x, below));
  const double share = (x - PairsOf(below)) / (PairsOf(above) - PairsOf(below));
  return absl::Seconds(low + share * (classes_[above].seconds - low));
}

}  // namespace switchyard::attention_worker
