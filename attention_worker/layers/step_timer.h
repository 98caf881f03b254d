// Where a step's time goes, by part of the model.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_STEP_TIMER_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_STEP_TIMER_H_

#include <array>
#include <chrono>

#include "absl/time/time.h"

namespace switchyard::attention_worker {

enum class StepPart {
  kOther,          // embedding, norms, residual sums, and whatever has no name
  kProjections,    // matrices of attention and delta rule, of a dense MLP
  kConvolution,    // delta rule but its recurrence: convolution, norms, gates
  kRecurrence,     // the delta rule itself
  kAttention,      // all of attention but its matrices
  kGate,           // the experts' choice
  kRoutedExperts,  // as their holders say: the slowest one's computing
  kSharedExpert,
  kDispatch,  // between the layer and its experts: sending, waiting, adding up
  kLmHead,
  kSampling,
};
inline constexpr int kNumStepParts = static_cast<int>(StepPart::kSampling) + 1;

// "other", "projections", ...: snake case, as in metrics and JSON.
const char* StepPartName(StepPart part);

// Divides the time between Start() and Stop() among parts; every moment belongs
// to one. Of one thread, the step's.
class StepTimer {
 public:
  // All sums to zero, and the clock runs, for kOther.
  void Start() {
    seconds_.fill(0);
    part_ = StepPart::kOther;
    since_ = Clock::now();
  }
  // The clock stands still.
  void Stop() { Enter(StepPart::kOther); }

  // From now on time belongs to `part`. Returns what it belonged to.
  StepPart Enter(StepPart part) {
    const Clock::time_point now = Clock::now();
    seconds_[static_cast<int>(part_)] +=
        std::chrono::duration<double>(now - since_).count();
    since_ = now;
    const StepPart former = part_;
    part_ = part;
    return former;
  }

  // So much of the time of `from` was spent for `to`, as far as `from` has it.
  void Move(StepPart from, StepPart to, absl::Duration time);

  double seconds(StepPart part) const {
    return seconds_[static_cast<int>(part)];
  }

 private:
  using Clock = std::chrono::steady_clock;

  std::array<double, kNumStepParts> seconds_ = {};
  StepPart part_ = StepPart::kOther;
  Clock::time_point since_;
};

// Time within a scope belongs to `part`; what is nested has its own. Costs one
// branch without a timer.
class TimedPart {
 public:
  TimedPart(StepTimer* timer, StepPart part) : timer_(timer) {
    if (timer_ != nullptr) former_ = timer_->Enter(part);
  }
  ~TimedPart() {
    if (timer_ != nullptr) timer_->Enter(former_);
  }
  TimedPart(const TimedPart&) = delete;
  TimedPart& operator=(const TimedPart&) = delete;

 private:
  StepTimer* const timer_;
  StepPart former_ = StepPart::kOther;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_STEP_TIMER_H_
