#include "attention_worker/sampling/top_candidates.h"

#include <algorithm>
#include <cmath>
#include <functional>
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
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const absl::Span<const float> logits = row.logits;
  const int64_t size = static_cast<int64_t>(logits.size());
  n = std::clamp<int64_t>(n, 0, size);
  std::vector<Candidate> best;
  if (n == 0) return best;
  const int64_t blocks = CandidateRow::NumBlocks(size);
  std::vector<float> found;
  absl::Span<const float> maxima = row.maxima;
  if (maxima.empty()) {
    found.resize(static_cast<size_t>(blocks));
    FindBlockMaxima(logits, 0, blocks, absl::MakeSpan(found));
    maxima = found;
  }
  // Entries not greater can't be among the n best: n blocks have one as great
  // as the n-th greatest of the maxima.
  bool have_bar = false;
  float bar = 0;
  if (blocks > n) {
    std::vector<float> ranked(maxima.begin(), maxima.end());
    std::nth_element(ranked.begin(), ranked.begin() + (n - 1), ranked.end(),
                     std::greater<>());
    have_bar = ranked[n - 1] > -kInfinity;
    bar = std::nextafter(ranked[n - 1], -kInfinity);
  }
  // Collect into a buffer of 2n; when it is full, keep its better half. After
  // that hardly any entry passes the comparison with the worst one kept.
  const size_t capacity = static_cast<size_t>(std::min(2 * n, size));
  best.reserve(capacity);
  for (int64_t block = 0; block < blocks; ++block) {
    if (have_bar && maxima[block] <= bar) continue;
    const int64_t end = std::min(size, (block + 1) * kBlock);
    for (int64_t i = block * kBlock; i < end; ++i) {
      float logit = logits[i];
      // Ids ascend, so an equal logit that comes later is the worse one. NaN
      // compares false and is looked at again below.
      if (have_bar && logit <= bar) continue;
      if (std::isnan(logit)) {
        logit = -kInfinity;
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
  }
  std::partial_sort(best.begin(), best.begin() + n, best.end(), Better);
  best.resize(n);
  return best;
}

}  // namespace switchyard::attention_worker
