#include "base/cpu_set.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

TEST(CpuSetTest, AvailableCpusAreInTheMask) {
  EXPECT_GE(AvailableCpus(), 1);
  EXPECT_LE(AvailableCpus(), static_cast<int>(AffinityCpus().size()));
}

TEST(CpuSetTest, ListsOfCpus) {
  const std::vector<int> allowed = AffinityCpus();
  ASSERT_FALSE(allowed.empty());
  const auto none = ParseCpuList("");
  ASSERT_THAT(none, IsOk());
  EXPECT_TRUE(none->empty());
  const auto one = ParseCpuList(absl::StrCat(allowed.back()));
  ASSERT_THAT(one, IsOk());
  EXPECT_EQ(*one, std::vector<int>{allowed.back()});
  for (size_t i = 0; i + 1 < allowed.size(); ++i) {
    if (allowed[i + 1] != allowed[i] + 1) continue;
    const auto range =
        ParseCpuList(absl::StrCat(allowed[i], "-", allowed[i + 1]));
    ASSERT_THAT(range, IsOk());
    EXPECT_EQ(*range, (std::vector<int>{allowed[i], allowed[i + 1]}));
    const auto backwards =
        ParseCpuList(absl::StrCat(allowed[i + 1], ",", allowed[i]));
    ASSERT_THAT(backwards, IsOk());
    EXPECT_EQ(*backwards, (std::vector<int>{allowed[i + 1], allowed[i]}));
    break;
  }
}

TEST(CpuSetTest, RefusesWhatIsNoList) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const int cpu = AffinityCpus().front();
  for (const char* list :
       {",", "x", "1-", "-1", "3-2", "1.5", "0-99999999", "0x1"}) {
    EXPECT_THAT(ParseCpuList(list), StatusIs(kInvalid)) << list;
  }
  EXPECT_THAT(ParseCpuList(absl::StrCat(cpu, ",", cpu)),
              StatusIs(kInvalid, HasSubstr("twice")));
  EXPECT_THAT(ParseCpuList("65000"), StatusIs(kInvalid, HasSubstr("may use")));
}

TEST(CpuSetTest, ThreadsAndCpusTogether) {
  EXPECT_EQ(ThreadCount(3, {}), 3);
  EXPECT_EQ(ThreadCount(0, {5, 6}), 2);
  EXPECT_EQ(ThreadCount(0, {}), AvailableCpus());
  EXPECT_THAT(CheckThreads(0, {}), IsOk());
  EXPECT_THAT(CheckThreads(2, {5, 6}), IsOk());
  EXPECT_THAT(CheckThreads(0, {5, 6}), IsOk());
  EXPECT_THAT(CheckThreads(3, {5, 6}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("--threads is 3, but --cpus lists 2 CPUs")));
}

}  // namespace
}  // namespace switchyard
