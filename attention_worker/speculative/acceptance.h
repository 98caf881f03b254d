// How often the drafts of a request turn out right.

#ifndef SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_ACCEPTANCE_H_
#define SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_ACCEPTANCE_H_

#include <cstdint>
#include <vector>

namespace switchyard::attention_worker {

// A value. Rates are moving averages: text changes its character on the way
// (a thought, a table, a quotation).
class Acceptance {
 public:
  // A drafted token is thought right with this chance until it is measured:
  // what well-trained heads reach.
  static constexpr double kPrior = 0.8;

  explicit Acceptance(int max_depth) : rates_(max_depth, kPrior) {}

  int max_depth() const { return static_cast<int>(rates_.size()); }
  // The chance that the (i + 1)-th token of a chain is right if those before it
  // are. 0 <= i < max_depth().
  double rate(int i) const { return rates_[i]; }

  // Of a chain of `drafted` tokens the first `accepted` were right. `weight` in
  // (0, 1] is the new observation's.
  void Observe(int64_t drafted, int64_t accepted, double weight);

 private:
  std::vector<double> rates_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_ACCEPTANCE_H_
