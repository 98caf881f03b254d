#include "model/expert_set.h"

#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::IsOkAndHolds;
using testing::StatusIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(ExpertSet, InsertEraseContains) {
  ExpertSet set(3, 50);
  EXPECT_TRUE(set.empty());
  set.Insert(0, 0);
  set.Insert(2, 49);
  set.Insert(1, 14);  // bit 64, of another word
  set.Insert(1, 14);
  EXPECT_EQ(set.size(), 3);
  EXPECT_TRUE(set.Contains(1, 14));
  EXPECT_FALSE(set.Contains(1, 13));
  EXPECT_FALSE(set.Contains(0, 64));  // not (1, 14)
  EXPECT_FALSE(set.Contains(-1, 0));
  EXPECT_FALSE(set.Contains(3, 0));
  EXPECT_FALSE(set.Contains(0, -1));
  EXPECT_FALSE(set.Contains(0, 50));
  set.Erase(1, 14);
  set.Erase(1, 14);
  EXPECT_FALSE(set.Contains(1, 14));
  EXPECT_EQ(set.size(), 2);
}

TEST(ExpertSet, BitmapLayout) {
  ExpertSet set(2, 5);
  set.Insert(0, 1);
  set.Insert(1, 4);  // bit 9
  EXPECT_EQ(set.ToBitmap(), std::string("\x02\x02", 2));
}

TEST(ExpertSet, BitmapRoundTrip) {
  std::mt19937 random(1);
  for (const auto& [layers, experts] :
       {std::pair(1, 1), std::pair(1, 8), std::pair(3, 50), std::pair(2, 64),
        std::pair(49, 512), std::pair(7, 9), std::pair(0, 5)}) {
    ExpertSet set(layers, experts);
    for (int layer = 0; layer < layers; ++layer) {
      for (int e = 0; e < experts; ++e) {
        if (random() % 2 == 0) set.Insert(layer, e);
      }
    }
    const std::string bitmap = set.ToBitmap();
    EXPECT_EQ(bitmap.size(), (layers * experts + 7) / 8);
    EXPECT_THAT(ExpertSet::FromBitmap(layers, experts, bitmap),
                IsOkAndHolds(set))
        << layers << " x " << experts;
  }
}

TEST(ExpertSet, BadBitmaps) {
  EXPECT_THAT(ExpertSet::FromBitmap(2, 5, "\x01"), StatusIs(kInvalid));
  EXPECT_THAT(ExpertSet::FromBitmap(2, 5, std::string(3, '\0')),
              StatusIs(kInvalid));
  EXPECT_THAT(ExpertSet::FromBitmap(2, 5, ""), StatusIs(kInvalid));
  EXPECT_THAT(ExpertSet::FromBitmap(-1, 5, ""), StatusIs(kInvalid));
  EXPECT_THAT(ExpertSet::FromBitmap(2, 5, std::string("\x00\x04", 2)),
              StatusIs(kInvalid, HasSubstr("beyond the 10")));
  EXPECT_THAT(ExpertSet::FromBitmap(2, 5, std::string("\x00\x03", 2)), IsOk());
}

TEST(ExpertSet, SetsOverOtherSizesDiffer) {
  EXPECT_NE(ExpertSet(2, 8), ExpertSet(8, 2));
}

TEST(ExpertsOfSlice, PartsTileTheExpertsEvenly) {
  for (const int experts : {1, 7, 16, 512}) {
    for (int n = 1; n <= experts; n += 1 + experts / 10) {
      std::vector<int> all;
      for (int i = 1; i <= n; ++i) {
        const auto part = ExpertsOfSlice(absl::StrCat(i, "/", n), experts);
        ASSERT_THAT(part, IsOk());
        EXPECT_GE(part->size(), static_cast<size_t>(experts / n));
        EXPECT_LE(part->size(), static_cast<size_t>((experts + n - 1) / n));
        all.insert(all.end(), part->begin(), part->end());
      }
      std::vector<int> expected(experts);
      std::iota(expected.begin(), expected.end(), 0);
      EXPECT_EQ(all, expected) << experts << " in " << n;
    }
  }
  EXPECT_THAT(ExpertsOfSlice("2/4", 8), IsOkAndHolds(ElementsAre(2, 3)));
}

TEST(ExpertsOfSlice, Errors) {
  for (const char* slice : {"", "1", "0/2", "3/2", "-1/2", "1/0", "1/9", "a/b",
                            "1/2/3", "/", "1/", "/2"}) {
    EXPECT_THAT(ExpertsOfSlice(slice, 8),
                StatusIs(kInvalid, HasSubstr("1 <= i <= n <= 8")))
        << slice;
  }
}

TEST(ParseExpertList, IdsAndRanges) {
  EXPECT_THAT(ParseExpertList("0-3,9,7-7", 10),
              IsOkAndHolds(ElementsAre(0, 1, 2, 3, 7, 9)));
  EXPECT_THAT(ParseExpertList("5", 10), IsOkAndHolds(ElementsAre(5)));
}

TEST(ParseExpertList, Errors) {
  for (const char* list :
       {"", ",", "1,", "10", "3-1", "1-10", "-1", "1-2-3", " 1", "1 ", "+1",
        "x", "1,1", "0-4,3", "1--2", "99999999999"}) {
    EXPECT_THAT(ParseExpertList(list, 10),
                StatusIs(kInvalid, HasSubstr(absl::StrCat("\"", list, "\""))))
        << list;
  }
}

TEST(FormatExpertList, Ranges) {
  EXPECT_EQ(FormatExpertList({}), "");
  EXPECT_EQ(FormatExpertList({4}), "4");
  EXPECT_EQ(FormatExpertList({0, 1, 2, 40, 41, 50}), "0-2, 40-41, 50");
}

}  // namespace
}  // namespace switchyard::model
