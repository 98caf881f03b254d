#include "attention_worker/sampling/top_candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace switchyard::attention_worker {

namespace {

// Entries of a row that are compared with the bar together.
constexpr int64_t kBlock = 64;

// Vector code, unlike a loop that leaves at the first one.
bool AnyAbove(const float* logits, float bar) {
  int above = 0;
  for (int64_t i = 0; i < kBlock; ++i) above |= logits[i] > bar ? 1 : 0;
  return above != 0;
}

}  // namespace

std::vector<Candidate> TopCandidates(absl::Span<const float> logits,
                                     int64_t n) {
  const int64_t size = static_cast<int64_t>(logits.size());
  n = std::clamp<int64_t>(n, 0, size);
  std::vector<Candidate> best;
  if (n == 0) return best;
  // Collect into a buffer of 2n; when it is full, keep its better half. After
  // that hardly any entry passes the comparison with the worst one kept.
  const size_t capacity = static_cast<size_t>(std::min(2 * n, size));
  best.reserve(capacity);
  bool have_bar = false;
  float bar = 0;  // entries not greater can't be among the n best
  for (int64_t i = 0; i < size; ++i) {
    // Most of a long row is passed over by blocks; NaN is never above.
    if (have_bar && i % kBlock == 0) {
      while (i + kBlock <= size && !AnyAbove(&logits[i], bar)) i += kBlock;
      if (i >= size) break;
    }
    float logit = logits[i];
    // Ids ascend, so an equal logit that comes later is the worse one. NaN
    // compares false and is looked at again below.
    if (have_bar && logit <= bar) continue;
    if (std::isnan(logit)) {
      logit = -std::numeric_limits<float>::infinity();
      if (have_bar) continue;
    }
    if (best.size() == capacity) {
      std::nth_element(best.begin(), best.begin() + (n - 1), best.end(),
                       Better);
      best.resize(n);
      bar = best.back().logit;
      have_bar = true;
      if (logit <= bar) continue;
    }
    best.push_back({logit, static_cast<int32_t>(i)});
  }
  std::partial_sort(best.begin(), best.begin() + n, best.end(), Better);
  best.resize(n);
  return best;
}

}  // namespace switchyard::attention_worker
