// switchyard-simulate: as many schedules as wanted, by hand.

#include <cstdint>
#include <cstdio>

#include "absl/flags/flag.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/command_line.h"
#include "base/log.h"
#include "tests/simulation/schedule.h"
#include "tests/simulation/simulate.h"

ABSL_FLAG(int64_t, schedules, 1'000'000, "how many to run");
ABSL_FLAG(uint64_t, first_seed, 1, "seed of the first one");

namespace switchyard::simulation {
namespace {

int Run() {
  SetLogLevel(static_cast<LogLevel>(4));  // above errors: they are meant
  const absl::Time start = absl::Now();
  const int64_t schedules = absl::GetFlag(FLAGS_schedules);
  const uint64_t first = absl::GetFlag(FLAGS_first_seed);
  Outcome sum;
  for (int64_t i = 0; i < schedules; ++i) {
    const Schedule schedule = ScheduleOf(first + static_cast<uint64_t>(i));
    const Outcome outcome = Simulate(schedule);
    if (!outcome.violation.empty()) {
      const Schedule smallest = Shrink(schedule, [](const Schedule& candidate) {
        return !Simulate(candidate).violation.empty();
      });
      std::printf("VIOLATION: %s\n%s\nsmaller, %s\n%s",
                  outcome.violation.c_str(), Describe(schedule).c_str(),
                  Simulate(smallest).violation.c_str(),
                  Describe(smallest).c_str());
      return 1;
    }
    sum.calls += outcome.calls;
    sum.hedges += outcome.hedges;
    sum.resent_pairs += outcome.resent_pairs;
    sum.ejections += outcome.ejections;
    sum.distrusted += outcome.distrusted;
    sum.late_replies += outcome.late_replies;
    sum.failed_sequences += outcome.failed_sequences;
  }
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  std::printf(
      "%lld schedules in %.1f s, %.0f a second; no violation\n"
      "calls %lld, hedges %lld, pairs resent %lld, ejections %lld, distrusted "
      "%lld, late replies %lld, failed sequences %lld\n",
      static_cast<long long>(schedules), seconds,
      static_cast<double>(schedules) / seconds,
      static_cast<long long>(sum.calls), static_cast<long long>(sum.hedges),
      static_cast<long long>(sum.resent_pairs),
      static_cast<long long>(sum.ejections),
      static_cast<long long>(sum.distrusted),
      static_cast<long long>(sum.late_replies),
      static_cast<long long>(sum.failed_sequences));
  return 0;
}

}  // namespace
}  // namespace switchyard::simulation

int main(int argc, char** argv) {
  const auto arguments = switchyard::ParseCommandLine(
      argc, argv, "switchyard-simulate: the expert fabric in simulated worlds");
  if (!arguments.ok()) {
    std::fprintf(stderr, "%s\n", arguments.status().ToString().c_str());
    return 2;
  }
  return switchyard::simulation::Run();
}
