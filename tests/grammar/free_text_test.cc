#include "grammar/free_text.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::grammar {
namespace {

// All texts of up to eight a's and b's.
std::vector<std::string> Texts() {
  std::vector<std::string> texts = {""};
  for (size_t i = 0; i < texts.size() && texts[i].size() < 8; ++i) {
    texts.push_back(texts[i] + "a");
    texts.push_back(texts[i] + "b");
  }
  return texts;
}

std::vector<std::string> RandomMarkers(int most, std::mt19937* random) {
  std::vector<std::string> markers(1 + (*random)() % most);
  for (std::string& marker : markers) {
    for (size_t size = 1 + (*random)() % 4; size > 0; --size) {
      marker += (*random)() % 2 == 0 ? 'a' : 'b';
    }
  }
  return markers;
}

TEST(FreeTextTest, WithoutMarkers) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const auto markers = RandomMarkers(3, &random);
    Budget budget;
    const auto dfa = TextWithout(markers, &budget);
    ASSERT_THAT(dfa, testing::IsOk());
    for (const std::string& text : Texts()) {
      bool free = true;
      for (const std::string& marker : markers) {
        free = free && !absl::StrContains(text, marker);
      }
      ASSERT_EQ(dfa->Matches(text), free) << text;
    }
    EXPECT_TRUE(dfa->Matches(std::string("\0\xFF other", 8)));
  }
}

TEST(FreeTextTest, UpToTheFirstEnd) {
  std::mt19937 random(2);
  int matched = 0;
  for (int round = 0; round < 300; ++round) {
    const auto ends = RandomMarkers(2, &random);
    const auto without = RandomMarkers(2, &random);
    Budget budget;
    std::vector<TextEnd> given;
    for (const std::string& end : ends) given.push_back({end});
    const auto dfa = TextUpTo(given, without, &budget);
    ASSERT_THAT(dfa, testing::IsOk());
    for (const std::string& text : Texts()) {
      // Of what is complete first, the longest; of equals an end.
      bool expected = false;
      for (size_t size = 1; size <= text.size(); ++size) {
        const auto beginning = absl::string_view(text).substr(0, size);
        size_t end = 0, other = 0;
        for (const std::string& marker : ends) {
          if (absl::EndsWith(beginning, marker)) {
            end = std::max(end, marker.size());
          }
        }
        for (const std::string& marker : without) {
          if (absl::EndsWith(beginning, marker)) {
            other = std::max(other, marker.size());
          }
        }
        if (end == 0 && other == 0) continue;
        expected = end >= other && size == text.size();
        break;
      }
      ASSERT_EQ(dfa->Matches(text), expected) << text;
      matched += expected ? 1 : 0;
    }
  }
  EXPECT_GT(matched, 1000);
}

TEST(FreeTextTest, CostsWhatItTakes) {
  Budget budget;
  EXPECT_FALSE(TextWithout({std::string(1 << 20, 'a')}, &budget).ok());
}

}  // namespace
}  // namespace switchyard::grammar
