#include "switchyard/plan/plan_command.h"

#include <sstream>
#include <string>

#include "absl/strings/str_format.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

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
  EXPECT_THAT(
      RunPlan(options, out),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("known are 1GbE, 10GbE, 25GbE, 100GbE, loopback")));
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

TEST(PlanCommandTest, TheSameNumbersForPrograms) {
  const testing::TempDir directory;
  PlanOptions options = Options();
  options.json_path = directory.File("plan.json");
  std::ostringstream out;
  ASSERT_THAT(RunPlan(options, out), IsOk());
  const auto text = ReadFile(options.json_path, 1 << 20);
  ASSERT_THAT(text, IsOk());
  const auto json = ParseJson(*text);
  ASSERT_THAT(json, IsOk());
  EXPECT_EQ((*json)["users"], 32);
  EXPECT_EQ((*json)["attention_workers"].get<int>() +
                (*json)["expert_workers"].get<int>(),
            10);
  const Json& decode = (*json)["decode"];
  double parts = 0;
  for (const char* part :
       {"attention", "experts", "wire", "dispatch", "queueing"}) {
    parts += decode[part].get<double>();
  }
  EXPECT_NEAR(parts, decode["seconds"].get<double>(), 1e-9);
  EXPECT_NEAR((*json)["tokens_per_second"].get<double>() * parts, 32, 1e-6);
  EXPECT_EQ((*json)["crossings"].size(), 11u);
  EXPECT_THAT(out.str(),
              HasSubstr(absl::StrFormat(
                  "%.1f tokens/s a user",
                  (*json)["tokens_per_second_per_user"].get<double>())));
  options.json_path = "/nowhere/plan.json";
  EXPECT_THAT(RunPlan(options, out).message(), HasSubstr("--json"));
}

// What scripts/check_plan asks for: a given shape on one machine.
TEST(PlanCommandTest, AShapeAndLimitsMayBeGiven) {
  const testing::TempDir directory;
  const auto plan = [&](int64_t attention, double gops,
                        const std::string& network) {
    PlanOptions options = Options();
    options.json_path = directory.File("plan.json");
    options.attention_workers = attention;
    options.core_gops = gops;
    options.network = network;
    std::ostringstream out;
    EXPECT_THAT(RunPlan(options, out), IsOk());
    return *ParseJson(*ReadFile(options.json_path, 1 << 20));
  };
  for (const int64_t attention : {1, 3}) {
    EXPECT_EQ(plan(attention, 470, "10GbE")["attention_workers"], attention);
  }
  const Json wired = plan(1, 470, "10GbE"), local = plan(1, 470, "loopback");
  EXPECT_LT(local["decode"]["wire"], wired["decode"]["wire"]);
  EXPECT_LT(local["decode"]["dispatch"], wired["decode"]["dispatch"]);
  EXPECT_EQ(local["decode"]["experts"], wired["decode"]["experts"]);
  EXPECT_GT(plan(1, 50, "10GbE")["prefill"]["experts"],
            2 * wired["prefill"]["experts"].get<double>());
  PlanOptions options = Options();
  std::ostringstream out;
  options.core_gops = 0;
  EXPECT_THAT(
      RunPlan(options, out),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--core-gops")));
  options = Options();
  options.attention_workers = 9;  // none is left for the experts
  EXPECT_THAT(RunPlan(options, out),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("9 attention workers")));
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
