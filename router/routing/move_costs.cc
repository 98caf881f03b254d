#include "router/routing/move_costs.h"

#include <utility>

namespace switchyard::router {
namespace {

// Shorter prompts measure the step's own cost.
constexpr int64_t kMinTokens = 64;
constexpr double kNewShare = 0.25;
// Asking, answering, and waiting for a step at both ends.
constexpr double kMoveSeconds = 0.02;

void Average(double value, bool* before, double* average) {
  *average = *before ? (1 - kNewShare) * *average + kNewShare * value : value;
  *before = true;
}

}  // namespace

void MoveCosts::ObserveReading(int64_t tokens, absl::Duration took) {
  if (tokens < kMinTokens || took <= absl::ZeroDuration()) return;
  MutexLock lock(&mutex_);
  Average(static_cast<double>(tokens) / absl::ToDoubleSeconds(took),
          &read_before_, &tokens_per_second_);
}

void MoveCosts::ObserveMove(int64_t bytes, absl::Duration took) {
  const double seconds = absl::ToDoubleSeconds(took) - kMoveSeconds;
  if (bytes <= 0 || seconds <= 0) return;
  MutexLock lock(&mutex_);
  Average(static_cast<double>(bytes) / seconds, &moved_before_,
          &bytes_per_second_);
}

bool MoveCosts::MovingIsCheaper(int64_t tokens, int64_t bytes) const {
  if (bytes <= 0) return false;
  MutexLock lock(&mutex_);
  return kMoveSeconds + static_cast<double>(bytes) / bytes_per_second_ <
         static_cast<double>(tokens) / tokens_per_second_;
}

}  // namespace switchyard::router
