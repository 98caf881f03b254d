#include "attention_worker/scheduler/decode_first.h"

#include <algorithm>
#include <vector>

#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// Tokens that every running sequence should still be able to generate when a
// newcomer is let in; without it, a newcomer would often be preempted at once.
constexpr int64_t kHeadroomTokens = 32;

// Shares `budget` among wishes `want` (> 0), given in order of arrival: nobody
// gets more than it wants, and nobody could get more without taking from one
// that has no more than itself. What does not divide goes to the oldest.
std::vector<int64_t> ShareEvenly(absl::Span<const int64_t> want,
                                 int64_t budget) {
  std::vector<int64_t> got(want.size(), 0);
  while (budget > 0) {
    int64_t hungry = 0;
    for (size_t i = 0; i < want.size(); ++i) hungry += got[i] < want[i];
    if (hungry == 0) break;
    const int64_t share = budget / hungry;
    for (size_t i = 0; i < want.size() && budget > 0; ++i) {
      // share 0: one each to the oldest, until the budget is spent.
      const int64_t more =
          std::min(want[i] - got[i], std::max<int64_t>(share, 1));
      got[i] += more;
      budget -= more;
    }
  }
  return got;
}

}  // namespace

StepPlan DecodeFirst::Plan(absl::Span<const SequenceView> sequences,
                           const StepBudget& budget) const {
  StepPlan plan;
  std::vector<size_t> holders;  // of states, in order of arrival
  int64_t bytes = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    SY_DCHECK(sequences[i].phase != SequencePhase::kFinished);
    if (!sequences[i].holds_state()) continue;
    holders.push_back(i);
    bytes += budget.BytesFor(sequences[i]);
  }
  while (bytes > budget.state_bytes && holders.size() > 1) {
    bytes -= budget.BytesFor(sequences[holders.back()]);
    plan.preempt.push_back(holders.back());
    holders.pop_back();
  }
  for (size_t i = 0; i < sequences.size() && plan.preempt.empty(); ++i) {
    if (sequences[i].phase != SequencePhase::kWaiting) continue;
    const int64_t running = static_cast<int64_t>(holders.size());
    const int64_t headroom =
        running == 0 ? 0
                     : (running + 1) * (budget.costs.BytesFor(kHeadroomTokens) -
                                        budget.costs.fixed_bytes);
    const int64_t cost = budget.BytesFor(sequences[i]);
    // First come, first served: who does not fit keeps those behind it waiting.
    if (running >= budget.max_running ||
        bytes + cost + headroom > budget.state_bytes) {
      break;
    }
    bytes += cost;
    plan.admit.push_back(i);
    holders.push_back(i);
  }
  std::sort(holders.begin(), holders.end());
  std::vector<int64_t> want;
  for (const size_t i : holders) {
    if (sequences[i].phase != SequencePhase::kDecoding) {
      want.push_back(sequences[i].remaining_tokens());
    }
  }
  const std::vector<int64_t> shares = ShareEvenly(want, budget.prefill_tokens);
  size_t next_share = 0;
  for (const size_t i : holders) {
    const bool decoding = sequences[i].phase == SequencePhase::kDecoding;
    const int64_t tokens = decoding ? 1 : shares[next_share++];
    if (tokens > 0) plan.entries.push_back({i, tokens});
  }
  return plan;
}

}  // namespace switchyard::attention_worker
