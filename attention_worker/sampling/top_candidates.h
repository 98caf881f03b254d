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

// The first min(n, V) of all entries by Better(), best first. NaN counts as
// -infinity. O(V) when n is small against V.
std::vector<Candidate> TopCandidates(absl::Span<const float> logits, int64_t n);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_TOP_CANDIDATES_H_
