#include "attention_worker/sampling/ranked_row.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// A level's bins are told apart by the key's bits from here up, as far as the
// level above has not told them apart.
constexpr int kShift[] = {20, 10, 0};
constexpr uint32_t kBins[] = {1 << 12, 1 << 10, 1 << 10};

// Of entries that weigh nothing. No logit's key: it would be a NaN's.
constexpr uint32_t kNoKey = UINT32_MAX;

// Smaller for greater logits; equal for equal ones.
uint32_t KeyOf(float logit) {
  if (std::isnan(logit)) logit = -std::numeric_limits<float>::infinity();
  const auto bits = std::bit_cast<uint32_t>(logit + 0.0f);  // no -0
  const uint32_t ascending = (bits >> 31) != 0 ? ~bits : bits | (1u << 31);
  return ~ascending;
}

}  // namespace

RankedRow::RankedRow(absl::Span<const float> logits, const Weight& weight)
    : keys_(logits.size()), weights_(logits.size()) {
  weight.Fill(logits, absl::MakeSpan(weights_));
  for (size_t i = 0; i < logits.size(); ++i) {
    const bool counts = weights_[i] > 0;
    keys_[i] = counts ? KeyOf(logits[i]) : kNoKey;
    size_ += counts;
  }
  SY_CHECK(size_ > 0);
}

const RankedRow::Bins& RankedRow::BinsOf(int level, uint32_t prefix) {
  Bins& bins = bins_[level];
  if (bins.prefix == prefix) return bins;
  bins.prefix = prefix;
  bins.weight.assign(kBins[level], 0);
  bins.count.assign(kBins[level], 0);
  const auto add = [&](size_t i) {
    const uint32_t bin = (keys_[i] >> kShift[level]) & (kBins[level] - 1);
    bins.weight[bin] += weights_[i];
    ++bins.count[bin];
  };
  switch (level) {
    case 0:
      for (size_t i = 0; i < keys_.size(); ++i) {
        if (keys_[i] != kNoKey) add(i);
      }
      break;
    case 1:
      members_.clear();
      for (size_t i = 0; i < keys_.size(); ++i) {
        if (keys_[i] >> kShift[0] != prefix || keys_[i] == kNoKey) continue;
        members_.push_back(static_cast<int32_t>(i));
        add(i);
      }
      bins_[2].prefix = -1;
      break;
    default:
      for (const int32_t i : members_) {
        if (keys_[i] >> kShift[1] == prefix) add(static_cast<size_t>(i));
      }
  }
  return bins;
}

template <typename Reached>
RankedRow::Prefix RankedRow::Find(const Reached& reached,
                                  const Prefix& within) {
  int64_t count = 0;
  double weight = 0;
  uint32_t prefix = 0;
  for (int level = 0; level < kLevels; ++level) {
    const Bins& bins = BinsOf(level, prefix);
    // The bin that `within` ends in, if it is one of these.
    const uint32_t end = within.key >> kShift[level];
    uint32_t chosen = kBins[level];
    for (uint32_t bin = 0; bin < kBins[level]; ++bin) {
      if (bins.count[bin] == 0) continue;
      const uint32_t path = (prefix * kBins[level]) | bin;
      if (path > end) break;
      // What rounding leaves to be reached is in the last one.
      if (chosen != kBins[level]) {
        count += bins.count[chosen];
        weight += bins.weight[chosen];
      }
      chosen = bin;
      if (path == end ||
          reached(count + bins.count[bin], weight + bins.weight[bin])) {
        break;
      }
    }
    SY_CHECK(chosen != kBins[level]);
    prefix = (prefix * kBins[level]) | chosen;
  }
  const Bins& last = bins_[kLevels - 1];
  const uint32_t bin = prefix & (kBins[kLevels - 1] - 1);
  const double each = last.weight[bin] / static_cast<double>(last.count[bin]);
  const int64_t most = prefix == within.key
                           ? std::min(within.ties, last.count[bin])
                           : last.count[bin];
  int64_t ties = 1;
  while (ties < most &&
         !reached(count + ties, weight + each * static_cast<double>(ties))) {
    ++ties;
  }
  return {.key = prefix,
          .ties = ties,
          .weight = weight + each * static_cast<double>(ties)};
}

RankedRow::Prefix RankedRow::FirstCount(int64_t count, const Prefix& within) {
  return Find([count](int64_t entries, double) { return entries >= count; },
              within);
}

RankedRow::Prefix RankedRow::FirstWeight(double weight, const Prefix& within) {
  return Find([weight](int64_t, double sum) { return sum >= weight; }, within);
}

RankedRow::Prefix RankedRow::WeighingEach(double least, const Prefix& within) {
  // Weights fall with keys, so these are the first ones, too.
  uint32_t last = 0;
  uint32_t first = kNoKey;
  for (size_t i = 0; i < keys_.size(); ++i) {
    if (keys_[i] == kNoKey) continue;
    first = std::min(first, keys_[i]);
    if (weights_[i] >= least) last = std::max(last, keys_[i]);
  }
  Prefix cut = within;
  if (last == 0) {
    cut = {.key = first, .ties = 1};
  } else if (last < cut.key) {
    cut = {.key = last, .ties = INT64_MAX};
  }
  return Find([](int64_t, double) { return false; }, cut);
}

int32_t RankedRow::EntryBeyond(double weight, const Prefix& within) {
  const Prefix found =
      Find([weight](int64_t, double sum) { return sum > weight; }, within);
  int64_t ties = found.ties;
  for (const int32_t i : members_) {
    if (keys_[i] == found.key && --ties == 0) return i;
  }
  SY_CHECK(!"an entry that was counted is there");
  return 0;
}

}  // namespace switchyard::attention_worker
