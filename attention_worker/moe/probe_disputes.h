// Probe rows to which holders gave different answers, and who of them is wrong
// once enough have answered.
//
// Above: holder_probes.h.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_PROBE_DISPUTES_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_PROBE_DISPUTES_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"

namespace switchyard::attention_worker {

// An answer is right that at least two holders gave, and more of them than gave
// any other. So one that computes wrongly is found out whenever it came: also
// if it was the first, and those that compute rightly joined after it.
//
// A value, without time or network of its own. One thread.
class ProbeDisputes {
 public:
  using Key = std::pair<int, int>;  // layer, expert
  // A holder, as the process that answered.
  struct Voter {
    uint64_t holder = 0;  // its id
    int process = 0;
  };
  struct Verdict {
    std::vector<float> right;
    std::vector<Voter> wrong;
  };

  // Only votes of voters that are there count. True if one went by that.
  bool Keep(absl::FunctionRef<bool(const Voter&)> is_there);

  // What a holder answered to the row of `key`; an answer that it gave before
  // counts no more. False, and nothing is kept, if there are too many disputes.
  bool Vote(const Key& key, const Voter& voter, std::vector<float> answer);
  // Ends the dispute, if enough have answered.
  std::optional<Verdict> Decide(const Key& key);

  bool Contains(const Key& key) const { return disputes_.contains(key); }
  bool HasVoted(const Key& key, uint64_t holder) const;
  // There is a dispute that this holder is a party of.
  bool Concerns(uint64_t holder) const;
  // In order.
  std::vector<Key> keys() const;

 private:
  struct Ballot {
    Voter voter;
    std::vector<float> answer;
  };
  std::map<Key, std::vector<Ballot>> disputes_;  // bounded
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_PROBE_DISPUTES_H_
