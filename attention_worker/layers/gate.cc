#include "attention_worker/layers/gate.h"

#include "base/check.h"
#include "kernels/math.h"

namespace switchyard::attention_worker {
namespace {

// Strictly better; for equals (and among NaNs) false, so that who came first,
// with the lower id, stays ahead.
bool Better(float a, float b) { return a > b || (a == a && b != b); }

}  // namespace

void SelectExperts(const float* logits, int num_experts, int k, bool normalise,
                   int32_t* experts, float* weights) {
  SY_DCHECK(k >= 1 && k <= num_experts);
  // Insertion into a list of k: of hundreds of experts few get past its last
  // one.
  int chosen = 0;
  for (int e = 0; e < num_experts; ++e) {
    if (chosen == k && !Better(logits[e], logits[experts[k - 1]])) continue;
    int place = chosen < k ? chosen++ : k - 1;
    for (; place > 0 && Better(logits[e], logits[experts[place - 1]]);
         --place) {
      experts[place] = experts[place - 1];
    }
    experts[place] = e;
  }

  const float max = logits[experts[0]];
  float sum = 0;
  for (int s = 0; s < k; ++s) {
    weights[s] = kernels::Exp(logits[experts[s]] - max);
    sum += weights[s];
  }
  if (!normalise) {
    sum = 0;
    for (int e = 0; e < num_experts; ++e) sum += kernels::Exp(logits[e] - max);
  }
  for (int s = 0; s < k; ++s) weights[s] /= sum;
}

}  // namespace switchyard::attention_worker
