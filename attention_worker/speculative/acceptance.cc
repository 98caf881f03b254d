#include "attention_worker/speculative/acceptance.h"

#include <algorithm>

#include "base/check.h"

namespace switchyard::attention_worker {

void Acceptance::Observe(int64_t drafted, int64_t accepted, double weight) {
  SY_CHECK(accepted >= 0 && accepted <= drafted && drafted <= max_depth());
  // What follows a wrong token was never asked.
  const int64_t asked = std::min(drafted, accepted + 1);
  for (int64_t i = 0; i < asked; ++i) {
    rates_[i] += weight * ((i < accepted ? 1.0 : 0.0) - rates_[i]);
  }
}

}  // namespace switchyard::attention_worker
