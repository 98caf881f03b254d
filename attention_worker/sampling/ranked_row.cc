#include "attention_worker/sampling/ranked_row.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "absl/types/optional.h"
#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

constexpr uint16_t kBins = 2048;
// What is so far from the greatest that it weighs below e^-32 of it shares the
// last bin.
constexpr float kRange = 32;

// Bins that entries of one bin are dealt out to, by their keys.
constexpr int kKeyBinBits = 10;

// Entries that are looked through together, so many at a time.
constexpr size_t kGroup = 32;
constexpr size_t kLanes = 8;

// Smaller for greater logits; equal for equal ones.
uint32_t KeyOf(float logit) {
  if (std::isnan(logit)) logit = -std::numeric_limits<float>::infinity();
  const auto bits = std::bit_cast<uint32_t>(logit + 0.0f);  // no -0
  const uint32_t ascending = (bits >> 31) != 0 ? ~bits : bits | (1u << 31);
  return ~ascending;
}

}  // namespace

RankedRow::RankedRow(absl::Span<const float> logits, const Weight& weight)
    : logits_(logits),
      weight_(weight),
      bins_per_logit_(weight.inverse_temperature() * ((kBins - 1) / kRange)),
      bin_of_(logits.size()),
      bin_weights_(kBins) {
  // Neighbours' sums are apart: to add to what was just stored takes long.
  std::vector<double> odd(kBins);
  std::array<float, Weight::kBlock> weights;
  for (size_t begin = 0; begin < logits.size(); begin += Weight::kBlock) {
    const absl::Span<const float> block = logits.subspan(begin, Weight::kBlock);
    const size_t size = block.size();
    weight.Fill(block, absl::MakeSpan(weights).first(size));
    uint16_t* const bins = bin_of_.data() + begin;
    for (size_t i = 0; i < size; ++i) bins[i] = BinOf(block[i]);
    for (size_t i = 0; i + 1 < size; i += 2) {
      bin_weights_[bins[i]] += weights[i];
      odd[bins[i + 1]] += weights[i + 1];
    }
    if (size % 2 != 0) bin_weights_[bins[size - 1]] += weights[size - 1];
  }
  for (size_t bin = 0; bin < kBins; ++bin) {
    bin_weights_[bin] += odd[bin];
    total_ += bin_weights_[bin];
  }
  SY_CHECK(total_ > 0);
}

uint16_t RankedRow::BinOf(float logit) const {
  constexpr float kLast = kBins - 1;
  const float bin = (weight_.max() - logit) * bins_per_logit_;
  // So that what is no number is in the last one.
  const float bounded = bin < kLast ? bin : kLast;
  return static_cast<uint16_t>(
      static_cast<int32_t>(bounded > 0 ? bounded : 0.0f));
}

void RankedRow::CountEntries() {
  bin_counts_.assign(kBins, 0);
  std::array<float, Weight::kBlock> weights;
  for (size_t begin = 0; begin < logits_.size(); begin += Weight::kBlock) {
    const absl::Span<const float> block =
        logits_.subspan(begin, Weight::kBlock);
    weight_.Fill(block, absl::MakeSpan(weights).first(block.size()));
    for (size_t i = 0; i < block.size(); ++i) {
      bin_counts_[bin_of_[begin + i]] += weights[i] > 0;
    }
  }
}

void RankedRow::CollectEntries(uint16_t bin) {
  std::vector<int32_t> ids;
  std::vector<float> logits;
  const auto collect = [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      if (bin_of_[i] != bin) continue;
      ids.push_back(static_cast<int32_t>(i));
      logits.push_back(logits_[i]);
    }
  };
  size_t begin = 0;
  for (; begin + kGroup <= bin_of_.size(); begin += kGroup) {
    // Masks in lanes of their own: vector code.
    uint16_t lanes[kLanes] = {};
    for (size_t i = 0; i < kGroup; i += kLanes) {
      for (size_t l = 0; l < kLanes; ++l) {
        lanes[l] |= bin_of_[begin + i + l] == bin ? 0xffff : 0;
      }
    }
    uint16_t any = 0;
    for (const uint16_t lane : lanes) any |= lane;
    if (any != 0) collect(begin, begin + kGroup);
  }
  collect(begin, bin_of_.size());
  std::vector<float> weights(logits.size());
  weight_.Fill(logits, absl::MakeSpan(weights));
  entries_.clear();
  for (size_t i = 0; i < ids.size(); ++i) {
    if (weights[i] > 0) {
      entries_.push_back(
          {.key = KeyOf(logits[i]), .id = ids[i], .weight = weights[i]});
    }
  }
}

template <typename Reached>
RankedRow::Prefix RankedRow::Find(const Reached& reached, const Prefix& within,
                                  bool with_counts) {
  if (with_counts && bin_counts_.empty()) CountEntries();
  const uint16_t end = BinOf(within.logit);
  int64_t count = 0;
  double weight = 0;
  absl::optional<uint16_t> chosen;
  for (uint16_t bin = 0; bin <= end; ++bin) {
    if (bin_weights_[bin] == 0) continue;
    // What rounding leaves to be reached is in the last one.
    if (chosen.has_value()) {
      weight += bin_weights_[*chosen];
      if (with_counts) count += bin_counts_[*chosen];
    }
    chosen = bin;
    if (reached(with_counts ? count + bin_counts_[bin] : 0,
                weight + bin_weights_[bin])) {
      break;
    }
  }
  SY_CHECK(chosen.has_value());
  CollectEntries(*chosen);
  return FindAmongEntries(reached, within, count, weight);
}

template <typename Reached>
RankedRow::Prefix RankedRow::FindAmongEntries(const Reached& reached,
                                              const Prefix& within,
                                              int64_t count, double weight) {
  const uint32_t end = KeyOf(within.logit);
  std::erase_if(entries_, [&](const Entry& entry) { return entry.key > end; });
  SY_CHECK(!entries_.empty());
  while (true) {
    const auto [least, greatest] = std::minmax_element(
        entries_.begin(), entries_.end(),
        [](const Entry& a, const Entry& b) { return a.key < b.key; });
    const uint32_t first = least->key;
    const uint32_t range = greatest->key - first;
    if (range == 0) break;
    const int shift =
        std::max(0, static_cast<int>(std::bit_width(range)) - kKeyBinBits);
    struct Bin {
      int64_t count = 0;
      double weight = 0;
    };
    std::array<Bin, 1 << kKeyBinBits> bins = {};
    for (const Entry& entry : entries_) {
      Bin& bin = bins[(entry.key - first) >> shift];
      ++bin.count;
      bin.weight += entry.weight;
    }
    uint32_t chosen = 0;  // it has an entry
    for (uint32_t i = 0; i < bins.size(); ++i) {
      if (bins[i].count == 0) continue;
      if (i > chosen) {
        count += bins[chosen].count;
        weight += bins[chosen].weight;
      }
      chosen = i;
      if (reached(count + bins[i].count, weight + bins[i].weight)) break;
    }
    std::erase_if(entries_, [&](const Entry& entry) {
      return (entry.key - first) >> shift != chosen;
    });
  }
  const int64_t all = static_cast<int64_t>(entries_.size());
  const int64_t most =
      entries_[0].key == end ? std::min(within.ties, all) : all;
  const double each = entries_[0].weight;
  int64_t ties = 1;
  while (ties < most &&
         !reached(count + ties, weight + each * static_cast<double>(ties))) {
    ++ties;
  }
  return {.logit = logits_[static_cast<size_t>(entries_[0].id)],
          .ties = ties,
          .weight = weight + each * static_cast<double>(ties)};
}

RankedRow::Prefix RankedRow::FirstCount(int64_t count, const Prefix& within) {
  return Find([count](int64_t entries, double) { return entries >= count; },
              within, /*with_counts=*/true);
}

RankedRow::Prefix RankedRow::FirstWeight(double weight, const Prefix& within) {
  return Find([weight](int64_t, double sum) { return sum >= weight; }, within);
}

RankedRow::Prefix RankedRow::FromLogit(float least, const Prefix& within) {
  if (KeyOf(within.logit) <= KeyOf(least)) return within;
  // The last one that is there.
  const uint32_t end = KeyOf(least);
  uint16_t bin = BinOf(least);
  while (true) {
    CollectEntries(bin);
    std::erase_if(entries_,
                  [&](const Entry& entry) { return entry.key > end; });
    if (!entries_.empty()) break;
    if (bin == 0) return FirstCount(1, within);
    --bin;
  }
  const auto last = std::max_element(
      entries_.begin(), entries_.end(),
      [](const Entry& a, const Entry& b) { return a.key < b.key; });
  return Find([](int64_t, double) { return false; },
              {.logit = logits_[static_cast<size_t>(last->id)]});
}

int32_t RankedRow::EntryBeyond(double weight, const Prefix& within) {
  const Prefix found =
      Find([weight](int64_t, double sum) { return sum > weight; }, within);
  return entries_[static_cast<size_t>(found.ties - 1)].id;
}

}  // namespace switchyard::attention_worker
