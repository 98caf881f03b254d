// How many calls may be made twice.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_HEDGE_BUDGET_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_HEDGE_BUDGET_H_

#include <algorithm>

namespace switchyard::attention_worker {

// A token bucket: every call brings a share of a token, a second call for the
// same rows takes a whole one. Never more than burst + share * calls of them,
// however slow everything gets: a pool that is merely overloaded must not be
// given more work. One thread.
class HedgeBudget {
 public:
  // Starts full.
  HedgeBudget(double share, double burst)
      : share_(share), burst_(burst), tokens_(burst) {}

  void CallSent() { tokens_ = std::min(burst_, tokens_ + share_); }
  // False, and nothing taken, if there are not so many.
  bool Take(int calls) {
    if (tokens_ < calls) return false;
    tokens_ -= calls;
    return true;
  }

 private:
  const double share_;
  const double burst_;
  double tokens_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_HEDGE_BUDGET_H_
