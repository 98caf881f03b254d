#include "text/bpe.h"

#include <map>
#include <random>
#include <utility>

#include "gtest/gtest.h"
#include "tests/text/test_files.h"

namespace switchyard::text {
namespace {

struct Rule {
  int32_t rank;
  int32_t merged;
};
using Rules = std::map<std::pair<int32_t, int32_t>, Rule>;

// The definition: merge the pair of lowest rank, leftmost, until there is none.
std::vector<int32_t> Naive(const Rules& rules, absl::string_view word) {
  std::vector<int32_t> ids;
  for (const char c : word) ids.push_back(static_cast<uint8_t>(c));
  while (true) {
    size_t best = ids.size();
    const Rule* best_rule = nullptr;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto rule = rules.find({ids[i], ids[i + 1]});
      if (rule != rules.end() &&
          (best_rule == nullptr || rule->second.rank < best_rule->rank)) {
        best = i;
        best_rule = &rule->second;
      }
    }
    if (best_rule == nullptr) return ids;
    ids[best] = best_rule->merged;
    ids.erase(ids.begin() + static_cast<int64_t>(best) + 1);
  }
}

TEST(BpeTest, ShortAndLongWordsFollowTheDefinition) {
  std::mt19937 random(12);
  for (int round = 0; round < 300; ++round) {
    BpeMerges merges;
    for (int byte = 0; byte < 256; ++byte) {
      merges.SetByteToken(static_cast<uint8_t>(byte), byte);
    }
    Rules rules;
    std::vector<int32_t> known = {'a', 'b', 'c'};
    const int count = static_cast<int>(random() % 40);
    for (int rank = 0; rank < count; ++rank) {
      const int32_t left = known[random() % known.size()];
      const int32_t right = known[random() % known.size()];
      const int32_t merged = 256 + rank;
      const bool is_new =
          rules.try_emplace({left, right}, Rule{rank, merged}).second;
      ASSERT_EQ(merges.AddMerge(left, right, merged, rank), is_new);
      if (is_new) known.push_back(merged);
    }
    for (const int size : {1, 2, 5, 31, 32, 33, 34, 100, 300}) {
      const std::string word = RandomText({"a", "b", "c"}, size, &random);
      std::vector<int32_t> ids = {-7};  // what is there already stays
      int64_t steps = 0;
      merges.Encode(word, &ids, &steps);
      std::vector<int32_t> expected = Naive(rules, word);
      expected.insert(expected.begin(), -7);
      ASSERT_EQ(ids, expected) << word;
      ASSERT_GT(steps, 0);
    }
  }
}

}  // namespace
}  // namespace switchyard::text
