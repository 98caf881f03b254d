#include "model/expert_set.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::model {
namespace {

constexpr int kWordBits = 64;

int64_t BitIndex(int layer, int expert, int num_experts) {
  return int64_t{layer} * num_experts + expert;
}

// A decimal number without sign or spaces, in [0, limit).
absl::StatusOr<int> ParseId(absl::string_view text, int limit,
                            absl::string_view whole) {
  int id = -1;
  const bool digits =
      !text.empty() && std::all_of(text.begin(), text.end(),
                                   [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || !absl::SimpleAtoi(text, &id) || id >= limit) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert list \"", whole, "\": \"", text,
                     "\" is not an expert; ids are 0 to ", limit - 1,
                     ", ranges like 0-15, separated by commas"));
  }
  return id;
}

}  // namespace

ExpertSet::ExpertSet(int num_layers, int num_experts)
    : num_layers_(num_layers), num_experts_(num_experts) {
  SY_CHECK(num_layers >= 0 && num_experts >= 0);
  const int64_t bits = int64_t{num_layers} * num_experts;
  words_.resize((bits + kWordBits - 1) / kWordBits);
}

bool ExpertSet::Contains(int layer, int expert) const {
  if (layer < 0 || layer >= num_layers_ || expert < 0 ||
      expert >= num_experts_) {
    return false;
  }
  const int64_t bit = BitIndex(layer, expert, num_experts_);
  return (words_[bit / kWordBits] >> (bit % kWordBits)) & 1;
}

void ExpertSet::Insert(int layer, int expert) {
  SY_CHECK(layer >= 0 && layer < num_layers_);
  SY_CHECK(expert >= 0 && expert < num_experts_);
  const int64_t bit = BitIndex(layer, expert, num_experts_);
  words_[bit / kWordBits] |= uint64_t{1} << (bit % kWordBits);
}

void ExpertSet::Erase(int layer, int expert) {
  SY_CHECK(layer >= 0 && layer < num_layers_);
  SY_CHECK(expert >= 0 && expert < num_experts_);
  const int64_t bit = BitIndex(layer, expert, num_experts_);
  words_[bit / kWordBits] &= ~(uint64_t{1} << (bit % kWordBits));
}

int64_t ExpertSet::size() const {
  int64_t count = 0;
  for (uint64_t word : words_) count += std::popcount(word);
  return count;
}

std::string ExpertSet::ToBitmap() const {
  const int64_t bits = int64_t{num_layers_} * num_experts_;
  std::string bitmap((bits + 7) / 8, '\0');
  for (size_t i = 0; i < bitmap.size(); ++i) {
    bitmap[i] = static_cast<char>(words_[i / 8] >> (i % 8 * 8));
  }
  return bitmap;
}

absl::StatusOr<ExpertSet> ExpertSet::FromBitmap(int num_layers, int num_experts,
                                                absl::string_view bitmap) {
  if (num_layers < 0 || num_experts < 0) {
    return absl::InvalidArgumentError("expert bitmap: negative sizes");
  }
  const int64_t bits = int64_t{num_layers} * num_experts;
  const int64_t bytes = (bits + 7) / 8;
  if (static_cast<int64_t>(bitmap.size()) != bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert bitmap: ", bitmap.size(), " bytes; ", num_layers,
                     " layers of ", num_experts, " experts need ", bytes));
  }
  if (bits % 8 != 0 && static_cast<uint8_t>(bitmap.back()) >> (bits % 8) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert bitmap: a bit beyond the ", bits,
                     " (layer, expert) pairs is set"));
  }
  ExpertSet set(num_layers, num_experts);
  for (size_t i = 0; i < bitmap.size(); ++i) {
    set.words_[i / 8] |= uint64_t{static_cast<uint8_t>(bitmap[i])}
                         << (i % 8 * 8);
  }
  return set;
}

absl::StatusOr<std::vector<int>> ExpertsOfSlice(absl::string_view slice,
                                                int num_experts) {
  const std::vector<absl::string_view> parts = absl::StrSplit(slice, '/');
  int part = 0;
  int count = 0;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &part) ||
      !absl::SimpleAtoi(parts[1], &count) || part < 1 || part > count ||
      count > num_experts) {
    return absl::InvalidArgumentError(
        absl::StrCat("slice \"", slice,
                     "\": it must be i/n with 1 <= i <= n <= ", num_experts,
                     ", the number of experts a layer; 2/4 is the second "
                     "quarter"));
  }
  const auto begin_of = [&](int64_t index) {
    return static_cast<int>(index * num_experts / count);
  };
  std::vector<int> experts;
  for (int e = begin_of(part - 1); e < begin_of(part); ++e) {
    experts.push_back(e);
  }
  return experts;
}

absl::StatusOr<std::vector<int>> ParseExpertList(absl::string_view list,
                                                 int num_experts) {
  std::vector<bool> seen(num_experts);
  for (absl::string_view item : absl::StrSplit(list, ',')) {
    const std::vector<absl::string_view> ends = absl::StrSplit(item, '-');
    SY_ASSIGN_OR_RETURN(const int first, ParseId(ends[0], num_experts, list));
    int last = first;
    if (ends.size() > 1) {
      SY_ASSIGN_OR_RETURN(last, ParseId(ends[1], num_experts, list));
    }
    if (ends.size() > 2 || last < first) {
      return absl::InvalidArgumentError(absl::StrCat(
          "expert list \"", list, "\": \"", item,
          "\" is no range; first-last with first <= last, both included"));
    }
    for (int e = first; e <= last; ++e) {
      if (seen[e]) {
        return absl::InvalidArgumentError(absl::StrCat(
            "expert list \"", list, "\": expert ", e, " is named twice"));
      }
      seen[e] = true;
    }
  }
  std::vector<int> experts;
  for (int e = 0; e < num_experts; ++e) {
    if (seen[e]) experts.push_back(e);
  }
  return experts;
}

std::string FormatExpertList(const std::vector<int>& ascending_ids) {
  std::string text;
  for (size_t i = 0; i < ascending_ids.size();) {
    size_t last = i;
    while (last + 1 < ascending_ids.size() &&
           ascending_ids[last + 1] == ascending_ids[last] + 1) {
      ++last;
    }
    absl::StrAppend(&text, text.empty() ? "" : ", ", ascending_ids[i]);
    if (last > i) absl::StrAppend(&text, "-", ascending_ids[last]);
    i = last + 1;
  }
  return text;
}

}  // namespace switchyard::model
