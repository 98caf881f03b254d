// The best n entries of a row, in order, without sorting the row.

#ifndef SWITCHYARD_ATTENTION_WORKER_SAMPLING_TOP_CANDIDATES_H_
#define SWITCHYARD_ATTENTION_WORKER_SAMPLING_TOP_CANDIDATES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace switchyard::attention_worker {

struct Candidate {
  float logit = 0;
  int32_t id = 0;
};

// The order of everything in sampling: greatest logit first, lowest id on ties.
inline bool Better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// The greatest entry; NaN entries are passed over. -infinity if there is no
// other. Compares sixteen at a time.
float GreatestLogit(absl::Span<const float> logits);

// A row, and the GreatestLogit of each of its blocks if somebody has found them
// out beforehand: then of nearly all blocks nothing else is read. Not owned.
struct CandidateRow {
  // Entries of a block; the last one may have fewer.
  static constexpr int64_t kBlock = 128;
  static int64_t NumBlocks(int64_t size) {
    return (size + kBlock - 1) / kBlock;
  }

  explicit CandidateRow(absl::Span<const float> values,
                        absl::Span<const float> block_maxima = {})
      : logits(values), maxima(block_maxima) {}

  float Greatest() const {
    return GreatestLogit(maxima.empty() ? logits : maxima);
  }

  absl::Span<const float> logits;
  absl::Span<const float> maxima;  // [NumBlocks], or empty
};

// The GreatestLogit of blocks [begin, end) of the row, to maxima[begin...].
void FindBlockMaxima(absl::Span<const float> logits, int64_t begin, int64_t end,
                     absl::Span<float> maxima);

// The first min(n, V) of all entries by Better(), best first. NaN counts as
// -infinity. O(V) when n is small against V.
std::vector<Candidate> TopCandidates(const CandidateRow& row, int64_t n);
inline std::vector<Candidate> TopCandidates(absl::Span<const float> logits,
                                            int64_t n) {
  return TopCandidates(CandidateRow(logits), n);
}

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_TOP_CANDIDATES_H_
