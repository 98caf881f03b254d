#include "attention_worker/sampling/top_candidates.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace switchyard::attention_worker {
namespace {

constexpr int64_t kLanes = 16;

}  // namespace

float GreatestLogit(absl::Span<const float> logits) {
  // Independent lanes, so that the compiler makes vector code of the loop; an
  // entry that is NaN compares false and leaves its lane as it is.
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -std::numeric_limits<float>::infinity());
  const int64_t size = static_cast<int64_t>(logits.size());
  const float* const row = logits.data();
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) {
      lanes[l] = row[i + l] > lanes[l] ? row[i + l] : lanes[l];
    }
  }
  for (int64_t l = 0; i + l < size; ++l) {
    if (row[i + l] > lanes[l]) lanes[l] = row[i + l];
  }
  return *std::max_element(lanes, lanes + kLanes);
}

void FindBlockMaxima(absl::Span<const float> logits, int64_t begin, int64_t end,
                     absl::Span<float> maxima) {
  for (int64_t block = begin; block < end; ++block) {
    // subspan cuts the last block to what there is.
    maxima[block] = GreatestLogit(
        logits.subspan(block * CandidateRow::kBlock, CandidateRow::kBlock));
  }
}

std::vector<Candidate> TopCandidates(const CandidateRow& row, int64_t n) {
  constexpr int64_t kBlock = CandidateRow::kBlock;
  const absl::Span<const float> logits = row.logits;
  const auto greatest_from = [&row](int64_t i) {
    return row.maxima.empty() ? GreatestLogit(row.logits.subspan(i, kBlock))
                              : row.maxima[i / kBlock];
  };
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
    // Blocks are passed over when none of their entries is great enough: of a
    // row of 151,936 nearly all are.
    while (have_bar && i % kBlock == 0 && i + kBlock <= size &&
           greatest_from(i) <= bar) {
      i += kBlock;
    }
    if (i == size) break;
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
