#include "switchyard/plan/plan_command.h"

#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

PlanOptions Options() {
  PlanOptions options;
  options.model = "80b";
  options.ram_per_node = "32GiB";
  options.nodes = 10;
  options.users = 32;
  return options;
}

TEST(PlanCommandTest, PrintsWhatAnOperatorNeeds) {
  std::ostringstream out;
  ASSERT_THAT(RunPlan(Options(), out), IsOk());
  for (const char* text :
       {"Experts 40.5 GiB (1.69 MiB each)", "expert workers, each",
        "states of running sequences", "tokens/s a user", "bound by",
        "Beside one server", "SWITCHYARD_REPLICAS=2",
        "name: switchyard-expert-worker, count: "}) {
    EXPECT_THAT(out.str(), HasSubstr(text));
  }
}

TEST(PlanCommandTest, AFolderIsAModelToo) {
  PlanOptions options = Options();
  options.model = SWITCHYARD_SOURCE_DIR "/models/demo";
  options.format = "source";
  options.context = 1024;
  std::ostringstream out;
  ASSERT_THAT(RunPlan(options, out), IsOk());
  EXPECT_THAT(out.str(), HasSubstr("Experts 0.0 GiB"));
  options.model = "/nowhere";
  EXPECT_THAT(RunPlan(options, out),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere")));
}

TEST(PlanCommandTest, UnknownNamesListTheKnown) {
  std::ostringstream out;
  PlanOptions options = Options();
  options.network = "tin cans";
  EXPECT_THAT(RunPlan(options, out),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("known are 1GbE, 10GbE, 25GbE, 100GbE")));
  options = Options();
  options.format = "q3";
  EXPECT_THAT(RunPlan(options, out),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("q3")));
  options = Options();
  options.memory_gbps = 0;
  EXPECT_THAT(
      RunPlan(options, out),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--memory-gbps")));
  EXPECT_EQ(out.str(), "");
}

TEST(ParseBytesTest, UnitsOfMemory) {
  EXPECT_EQ(*ParseBytes("--x", "64GiB"), 64.0 * (1 << 30));
  EXPECT_EQ(*ParseBytes("--x", "64g"), 64.0 * (1 << 30));
  EXPECT_EQ(*ParseBytes("--x", "1.5MiB"), 1.5 * (1 << 20));
  EXPECT_EQ(*ParseBytes("--x", "4096"), 4096);
  for (const char* bad : {"", "GiB", "-1GiB", "64 parsecs", "nan", "inf"}) {
    EXPECT_THAT(ParseBytes("--x", bad).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--x=")))
        << bad;
  }
}

}  // namespace
}  // namespace switchyard
