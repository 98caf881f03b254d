// How long a holder takes, learned from its answers.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_LATENCY_MODEL_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_LATENCY_MODEL_H_

#include <array>
#include <cstdint>

#include "absl/time/time.h"

namespace switchyard::attention_worker {

// The median time of a call by the pairs that the holder had to compute for it,
// in classes of powers of two, and how far the slow ones lie above it. Medians,
// so that a machine that was busy elsewhere for 50 ms once changes nothing.
// Follows a change within some twenty calls. A value; one thread.
class LatencyModel {
 public:
  // An answer came `latency` after its call was sent; with it the holder had
  // `pairs` pairs to compute, at least 1: the call's, and those sent before it
  // that were not answered then.
  void Observe(int64_t pairs, absl::Duration latency);

  // Whether there was any answer yet.
  bool known() const { return samples_ > 0; }
  int64_t samples() const { return samples_; }

  // Whether calls of about so many pairs were answered often enough to say when
  // one of them is late.
  bool Knows(int64_t pairs) const;

  // The median for so many pairs, at least 1: between two classes seen a
  // straight line, outside of them a guess. REQUIRES: known().
  absl::Duration Typical(int64_t pairs) const;

  // About one in twenty calls takes longer than Typical() times this.
  double tail() const { return tail_; }

 private:
  static constexpr int kClasses = 24;
  struct Class {
    double seconds = 0;
    int samples = 0;
  };

  std::array<Class, kClasses> classes_;
  int64_t samples_ = 0;
  double tail_ = 2;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_LATENCY_MODEL_H_
