#include "metrics/registry.h"

#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/thread.h"
#include "base/version.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::metrics {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

// The value in the line that starts with `series` ("a_total{x=\"y\"}"); NaN
// when there is none, which compares as nothing.
double ValueOf(const std::string& text, const std::string& series) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    double value = 0;
    if (absl::ConsumePrefix(&line, series + " ") &&
        absl::SimpleAtod(line, &value)) {
      return value;
    }
  }
  return std::numeric_limits<double>::quiet_NaN();
}

TEST(RegistryTest, ExposesTheTextFormat) {
  const auto registry = Registry::Create();
  registry->AddCounter("vllm:prompt_tokens_total", "Prompt tokens.")
      ->Increment(7);
  registry->AddGauge("waiting", "Requests that wait.", {{"why", "a\"b"}})
      ->Set(-1.5);
  EXPECT_EQ(registry->Expose(),
            "# HELP vllm:prompt_tokens_total Prompt tokens.\n"
            "# TYPE vllm:prompt_tokens_total counter\n"
            "vllm:prompt_tokens_total 7\n"
            "# HELP waiting Requests that wait.\n"
            "# TYPE waiting gauge\n"
            "waiting{why=\"a\\\"b\"} -1.5\n");
}

TEST(RegistryTest, CountersAndGaugesCount) {
  const auto registry = Registry::Create();
  Counter* const counter = registry->AddCounter("a_total", "A.");
  counter->Increment();
  counter->Increment(2.5);
  EXPECT_EQ(counter->value(), 3.5);
  Gauge* const gauge = registry->AddGauge("g", "G.");
  gauge->Set(5);
  gauge->Add(-7);
  EXPECT_EQ(gauge->value(), -2);
}

TEST(RegistryTest, HistogramsAreCumulativeWithEdgesIncluded) {
  const auto registry = Registry::Create();
  Histogram* const histogram =
      registry->AddHistogram("h_seconds", "H.", {0.5, 1, 2}, {{"a", "b"}});
  for (const double value : {0.5, 0.6, 1.0, 3.0}) histogram->Observe(value);
  EXPECT_EQ(histogram->count(), 4);
  const std::string text = registry->Expose();
  EXPECT_EQ(ValueOf(text, "h_seconds_bucket{a=\"b\",le=\"0.5\"}"), 1);
  EXPECT_EQ(ValueOf(text, "h_seconds_bucket{a=\"b\",le=\"1\"}"), 3);
  EXPECT_EQ(ValueOf(text, "h_seconds_bucket{a=\"b\",le=\"2\"}"), 3);
  EXPECT_EQ(ValueOf(text, "h_seconds_bucket{a=\"b\",le=\"+Inf\"}"), 4);
  EXPECT_EQ(ValueOf(text, "h_seconds_sum{a=\"b\"}"), 5.1);
  EXPECT_EQ(ValueOf(text, "h_seconds_count{a=\"b\"}"), 4);
}

TEST(RegistryTest, SameNameAndLabelsGiveTheSameHandle) {
  const auto registry = Registry::Create();
  EXPECT_EQ(registry->AddCounter("a_total", "A."),
            registry->AddCounter("a_total", "A."));
  EXPECT_NE(registry->AddCounter("a_total", "A.", {{"x", "1"}}),
            registry->AddCounter("a_total", "A.", {{"x", "2"}}));
  EXPECT_EQ(registry->AddGauge("g", "G.", {{"x", "1"}}),
            registry->AddGauge("g", "G.", {{"x", "1"}}));
  EXPECT_EQ(registry->AddHistogram("h", "H.", {1, 2}),
            registry->AddHistogram("h", "H.", {1, 2}));
}

TEST(RegistryDeathTest, RefusesBrokenNamesKindsAndHelp) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto registry = Registry::Create();
  registry->AddCounter("a_total", "A.");
  registry->AddHistogram("h", "H.", {1, 2});
  EXPECT_DEATH(registry->AddCounter("a", "A."), "_total");
  EXPECT_DEATH(registry->AddGauge("a b", "A."), "CheckMetricName");
  EXPECT_DEATH(registry->AddGauge("g", "two\nlines"), "help.find_first_of");
  EXPECT_DEATH(registry->AddGauge("g", "G.", {{"le", "x"}}), "IsLabelName");
  EXPECT_DEATH(registry->AddGauge("g", "G.", {{"1", "x"}}), "IsLabelName");
  EXPECT_DEATH(registry->AddGauge("g", "G.", {{"a-b", "x"}}), "IsLabelName");
  EXPECT_DEATH(registry->AddGauge("a_total", "A."), "counters == nullptr");
  EXPECT_DEATH(registry->AddCounter("a_total", "B."), "help");
  EXPECT_DEATH(registry->AddHistogram("h", "H.", {1, 3}), "buckets");
  EXPECT_DEATH(registry->AddHistogram("i", "I.", {1, 1}), "is_sorted");
}

TEST(RegistryTest, CollectorsRunBeforeEachExposition) {
  const auto registry = Registry::Create();
  Gauge* const gauge = registry->AddGauge("g", "G.");
  registry->AddCollector([gauge] { gauge->Add(1); });
  EXPECT_EQ(ValueOf(registry->Expose(), "g"), 1);
  EXPECT_EQ(ValueOf(registry->Expose(), "g"), 2);
}

TEST(RegistryTest, ThreadsMayUseItAtOnce) {
  const auto registry = Registry::Create();
  AddProcessMetrics(registry.get(), "test");
  constexpr int kIncrements = 500;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.push_back(StartThread(absl::StrCat("test-", i), [&registry] {
      for (int j = 0; j < kIncrements; ++j) {
        registry->AddCounter("a_total", "A.")->Increment();
        registry->AddHistogram("h", "H.", {1})->Observe(j);
        if (j % 100 == 0) {
          EXPECT_THAT(registry->Expose(), HasSubstr("a_total"));
        }
      }
    }));
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(registry->AddCounter("a_total", "A.")->value(), 4 * kIncrements);
  EXPECT_EQ(registry->AddHistogram("h", "H.", {1})->count(), 4 * kIncrements);
}

TEST(RegistryTest, IncludesWhatItLacksFromAnother) {
  const std::unique_ptr<Registry> front = Registry::Create();
  const std::unique_ptr<Registry> behind = Registry::Create();
  front->Include(behind.get());
  front->AddCounter("both_total", "Of the front.")->Increment(1);
  behind->AddCounter("both_total", "Of the one behind.")->Increment(2);
  Gauge* const alone = behind->AddGauge("alone", "Of the one behind.");
  behind->AddCollector([alone] { alone->Set(3); });

  const std::string text = front->Expose();
  EXPECT_THAT(text, HasSubstr("both_total 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("both_total 2")));
  EXPECT_THAT(text, HasSubstr("alone 3\n"));
  EXPECT_THAT(behind->Expose(), HasSubstr("both_total 2\n"));
}

TEST(BucketsTest, AreThoseOfTheField) {
  EXPECT_THAT(TimeToFirstTokenBuckets(),
              ElementsAre(.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75,
                          1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560));
  EXPECT_THAT(InterTokenBuckets(),
              ElementsAre(.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1,
                          2.5, 5, 7.5, 10, 20, 40, 80));
  EXPECT_THAT(RequestSecondsBuckets(),
              ElementsAre(.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50,
                          60, 120, 240, 480, 960, 1920, 7680));
  EXPECT_THAT(ShortSecondsBuckets(), SizeIs(22));
  EXPECT_EQ(ShortSecondsBuckets().front(), 1e-6);
  EXPECT_EQ(ShortSecondsBuckets().back(), 10);
}

TEST(BucketsTest, TokenCountsGoInDecadesUpToTheMaximum) {
  EXPECT_THAT(TokenCountBuckets(1), ElementsAre(1));
  EXPECT_THAT(TokenCountBuckets(100), ElementsAre(1, 2, 5, 10, 20, 50, 100));
  EXPECT_THAT(TokenCountBuckets(499),
              ElementsAre(1, 2, 5, 10, 20, 50, 100, 200));
}

TEST(BucketsTest, ArePrintedAsTheyAreWritten) {
  const auto registry = Registry::Create();
  registry->AddHistogram("h", "H.", ShortSecondsBuckets());
  registry->AddHistogram("i", "I.", TimeToFirstTokenBuckets());
  const std::string text = registry->Expose();
  EXPECT_THAT(text, AllOf(HasSubstr("le=\"2e-06\""), HasSubstr("le=\"0.005\""),
                          HasSubstr("le=\"0.08\""), HasSubstr("le=\"2560\""),
                          Not(HasSubstr("0000000")), Not(HasSubstr("9999"))));
}

TEST(ProcessMetricsTest, TellWhatProcTells) {
  const auto registry = Registry::Create();
  AddProcessMetrics(registry.get(), "router");
  const std::string text = registry->Expose();
  EXPECT_EQ(
      ValueOf(text, absl::StrCat("switchyard_build_info{service=\"router\","
                                 "version=\"",
                                 kVersion, "\"}")),
      1);
  EXPECT_THAT(ValueOf(text, "process_resident_memory_bytes"), Gt(1 << 20));
  EXPECT_THAT(ValueOf(text, "process_virtual_memory_bytes"), Gt(1 << 20));
  EXPECT_THAT(ValueOf(text, "process_open_fds"), Gt(2));
  EXPECT_THAT(ValueOf(text, "process_max_fds"), Gt(15));
  const double now = absl::ToDoubleSeconds(absl::Now() - absl::UnixEpoch());
  const double start = ValueOf(text, "process_start_time_seconds");
  EXPECT_GT(start, now - 3600);  // the machine's start has whole seconds only
  EXPECT_LT(start, now + 2);

  // CPU time grows, and is that of the process: it never exceeds the clock's by
  // more than its threads (this test has one).
  const double before = ValueOf(text, "process_cpu_seconds_total");
  const absl::Time deadline = absl::Now() + absl::Minutes(1);
  double after = before;
  while (!(after > before) && absl::Now() < deadline) {
    after = ValueOf(registry->Expose(), "process_cpu_seconds_total");
  }
  EXPECT_GT(after, before);
}

}  // namespace
}  // namespace switchyard::metrics
