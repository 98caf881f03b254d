// A row's entries in order of Better(), without sorting them: where in that
// order so many entries, or so much weight, are reached.

#ifndef SWITCHYARD_ATTENTION_WORKER_SAMPLING_RANKED_ROW_H_
#define SWITCHYARD_ATTENTION_WORKER_SAMPLING_RANKED_ROW_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "attention_worker/sampling/weight.h"

namespace switchyard::attention_worker {

// A radix select over the logits' bits, in three levels of bins. O(V) to make
// and O(V) for a question, with a small factor; the same on every machine,
// since what is added is added in an order that depends on the row alone.
//
// For flat distributions: where few candidates matter, TopCandidates is faster.
class RankedRow {
 public:
  // Entries without weight are left out; there must be one that has some.
  RankedRow(absl::Span<const float> logits, const Weight& weight);

  // The first entries in order, up to and with the `ties`-th of those that have
  // this key.
  struct Prefix {
    uint32_t key = UINT32_MAX;
    int64_t ties = INT64_MAX;
    double weight = 0;  // of them all
  };

  // Entries and weight of everything.
  int64_t size() const { return size_; }
  Prefix All() { return FirstCount(size_, Prefix()); }

  // The first `count` entries, or all of `within`; count > 0.
  Prefix FirstCount(int64_t count, const Prefix& within);
  // The fewest that weigh `weight` or more, or all of `within`.
  Prefix FirstWeight(double weight, const Prefix& within);
  // Those of `within` that weigh `least` or more each; the first one anyway.
  Prefix WeighingEach(double least, const Prefix& within);
  // The first entry up to which they weigh more than `weight`, or the last of
  // `within`.
  int32_t EntryBeyond(double weight, const Prefix& within);

 private:
  static constexpr int kLevels = 3;
  struct Bins {
    std::vector<double> weight;
    std::vector<int64_t> count;
    int64_t prefix = -1;  // of the keys that are counted; -1: of none
  };

  const Bins& BinsOf(int level, uint32_t prefix);
  // The first entry in order at which `reached(count, weight)` of all up to it
  // is true, or the last of `within`.
  template <typename Reached>
  Prefix Find(const Reached& reached, const Prefix& within);

  std::vector<uint32_t> keys_;   // [V], ascending with Better()
  std::vector<double> weights_;  // [V]
  int64_t size_ = 0;             // entries that weigh anything
  std::array<Bins, kLevels> bins_;
  std::vector<int32_t> members_;  // of the bin that bins_[1] divides
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_RANKED_ROW_H_
