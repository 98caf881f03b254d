#include "attention_worker/scheduler/decode_first.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <utility>
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

using Sequences = absl::Span<const SequenceView>;

// Of `waiting` the one that is let in next: its place there.
size_t NextToLetIn(Sequences sequences, const std::vector<size_t>& waiting,
                   const std::map<uint64_t, int64_t>& running_of) {
  const auto rank = [&](size_t i) {
    const auto running = running_of.find(sequences[i].client);
    return std::make_tuple(sequences[i].priority,
                           running == running_of.end() ? 0 : running->second,
                           i);
  };
  return std::min_element(
             waiting.begin(), waiting.end(),
             [&](size_t a, size_t b) { return rank(a) < rank(b); }) -
         waiting.begin();
}

// Of `holders` the one that gives its state back first: its place there.
size_t FirstToGo(Sequences sequences, const std::vector<size_t>& holders) {
  return std::max_element(holders.begin(), holders.end(),
                          [&](size_t a, size_t b) {
                            return std::make_pair(sequences[a].priority, a) <
                                   std::make_pair(sequences[b].priority, b);
                          }) -
         holders.begin();
}

// Prompt tokens for each of `reading` (indices in order of arrival): priority
// after priority, and there evenly among clients, then among a client's.
std::map<size_t, int64_t> SharePromptTokens(Sequences sequences,
                                            const std::vector<size_t>& reading,
                                            int64_t budget) {
  // Clients in the order of their first arrival.
  struct Group {
    uint64_t client;
    std::vector<size_t> members;
    int64_t want;
  };
  std::map<int32_t, std::vector<Group>> by_priority;
  for (const size_t i : reading) {
    std::vector<Group>& groups = by_priority[sequences[i].priority];
    auto group = std::find_if(
        groups.begin(), groups.end(),
        [&](const Group& g) { return g.client == sequences[i].client; });
    if (group == groups.end()) {
      group = groups.insert(group, {sequences[i].client, {}, 0});
    }
    group->members.push_back(i);
    group->want += sequences[i].remaining_tokens();
  }
  std::map<size_t, int64_t> shares;
  for (const auto& [priority, groups] : by_priority) {
    std::vector<int64_t> wants;
    for (const Group& group : groups) wants.push_back(group.want);
    const std::vector<int64_t> got = ShareEvenly(wants, budget);
    for (size_t g = 0; g < groups.size(); ++g) {
      budget -= got[g];
      wants.clear();
      for (const size_t i : groups[g].members) {
        wants.push_back(sequences[i].remaining_tokens());
      }
      const std::vector<int64_t> of_members = ShareEvenly(wants, got[g]);
      for (size_t m = 0; m < of_members.size(); ++m) {
        shares[groups[g].members[m]] = of_members[m];
      }
    }
  }
  return shares;
}

}  // namespace

StepPlan DecodeFirst::Plan(absl::Span<const SequenceView> sequences,
                           const StepBudget& budget) const {
  StepPlan plan;
  std::vector<size_t> holders;  // of states, in order of arrival
  std::vector<size_t> waiting;
  std::map<uint64_t, int64_t> running_of;  // of a client
  int64_t bytes = 0;
  for (size_t i = 0; i < sequences.size(); ++i) {
    SY_DCHECK(sequences[i].phase != SequencePhase::kFinished);
    if (!sequences[i].holds_state()) {
      waiting.push_back(i);
      continue;
    }
    holders.push_back(i);
    ++running_of[sequences[i].client];
    bytes += budget.BytesFor(sequences[i]);
  }
  while (bytes > budget.state_bytes && holders.size() > 1) {
    const size_t place = FirstToGo(sequences, holders);
    bytes -= budget.BytesFor(sequences[holders[place]]);
    plan.preempt.push_back(holders[place]);
    holders.erase(holders.begin() + static_cast<std::ptrdiff_t>(place));
  }
  while (!waiting.empty() && plan.preempt.empty()) {
    const size_t place = NextToLetIn(sequences, waiting, running_of);
    const size_t i = waiting[place];
    const int64_t running = static_cast<int64_t>(holders.size());
    const int64_t headroom =
        running == 0 ? 0
                     : (running + 1) * (budget.costs.BytesFor(kHeadroomTokens) -
                                        budget.costs.fixed_bytes);
    const int64_t cost = budget.BytesFor(sequences[i]);
    if (running >= budget.max_running ||
        bytes + cost + headroom > budget.state_bytes) {
      break;
    }
    bytes += cost;
    plan.admit.push_back(i);
    holders.push_back(i);
    ++running_of[sequences[i].client];
    waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(place));
  }
  std::sort(holders.begin(), holders.end());
  std::vector<size_t> reading;
  for (const size_t i : holders) {
    if (sequences[i].phase != SequencePhase::kDecoding) reading.push_back(i);
  }
  const std::map<size_t, int64_t> shares =
      SharePromptTokens(sequences, reading, budget.prefill_tokens);
  for (const size_t i : holders) {
    const auto share = shares.find(i);
    const int64_t tokens = share == shares.end() ? 1 : share->second;
    if (tokens > 0) plan.entries.push_back({i, tokens});
  }
  return plan;
}

}  // namespace switchyard::attention_worker
