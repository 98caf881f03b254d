// A row's entries in order of Better(), without sorting them: where in that
// order so many entries, or so much weight, are reached.

#ifndef SWITCHYARD_ATTENTION_WORKER_SAMPLING_RANKED_ROW_H_
#define SWITCHYARD_ATTENTION_WORKER_SAMPLING_RANKED_ROW_H_

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"
#include "attention_worker/sampling/weight.h"

namespace switchyard::attention_worker {

// Making one sorts the entries into bins by their distance from the greatest
// logit; a question then walks over the bins' weights and looks closer at the
// entries of one of them. O(V) with a small factor; the same on every machine,
// since what is added is added in an order that depends on the row alone.
//
// For flat distributions: where few candidates matter, TopCandidates is faster.
class RankedRow {
 public:
  // Entries without weight are left out; there must be one that has some.
  // `logits` must outlive this.
  RankedRow(absl::Span<const float> logits, const Weight& weight);

  // The first entries in order, up to and with the `ties`-th of those that have
  // this logit.
  struct Prefix {
    float logit = -std::numeric_limits<float>::infinity();
    int64_t ties = INT64_MAX;
    double weight = 0;  // of them all
  };

  Prefix All() const { return {.weight = total_}; }
  // The first `count` entries, or all of `within`; count > 0.
  Prefix FirstCount(int64_t count, const Prefix& within);
  // The fewest that weigh `weight` or more, or all of `within`.
  Prefix FirstWeight(double weight, const Prefix& within);
  // Those of `within` whose logits are `least` or more; the first one anyway.
  Prefix FromLogit(float least, const Prefix& within);
  // The first entry up to which they weigh more than `weight`, or the last of
  // `within`.
  int32_t EntryBeyond(double weight, const Prefix& within);

 private:
  struct Entry {
    uint32_t key;  // ascending with Better(), equal for equal logits
    int32_t id;
    float weight;
  };

  uint16_t BinOf(float logit) const;
  void CountEntries();
  // The entries of a bin that weigh anything, to entries_, by id.
  void CollectEntries(uint16_t bin);
  // The first entry in order at which `reached(count, weight)` of all up to it
  // is true, or the last of `within`. Leaves the entries that have its logit in
  // entries_. Without with_counts, `count` means nothing.
  template <typename Reached>
  Prefix Find(const Reached& reached, const Prefix& within,
              bool with_counts = false);
  // The same among entries_, which come behind so many entries of such weight.
  template <typename Reached>
  Prefix FindAmongEntries(const Reached& reached, const Prefix& within,
                          int64_t count, double weight);

  const absl::Span<const float> logits_;
  const Weight weight_;
  const float bins_per_logit_;
  std::vector<uint16_t> bin_of_;  // [V]
  std::vector<double> bin_weights_;
  std::vector<int64_t> bin_counts_;  // empty until somebody asks
  double total_ = 0;
  std::vector<Entry> entries_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_RANKED_ROW_H_
