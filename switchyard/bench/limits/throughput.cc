#include "switchyard/bench/limits/throughput.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/thread.h"

namespace switchyard::bench {
namespace {

constexpr absl::Duration kWindow = absl::Milliseconds(20);
// Of the first windows, in which CPUs leave their sleep; not counted.
constexpr int kWarmUpWindows = 2;

struct alignas(64) Counter {
  std::atomic<int64_t> pieces{0};
};

struct Progress {
  int64_t pieces = 0;
  bool all_begun = true;
};

Progress Sum(const Counter* counters, int threads) {
  Progress progress;
  for (int i = 0; i < threads; ++i) {
    const int64_t pieces = counters[i].pieces.load(std::memory_order_relaxed);
    progress.pieces += pieces;
    progress.all_begun = progress.all_begun && pieces > 0;
  }
  return progress;
}

// Puts the calling thread on the `index`-th of the CPUs that it may use.
void PinTo(int index) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  int left = index % CPU_COUNT(&allowed);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed) || left-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof(one), &one);
    return;
  }
}

}  // namespace

Rate MeasureThroughput(int threads, double seconds, double piece_size,
                       absl::FunctionRef<void(int thread)> piece) {
  const auto counters = std::make_unique<Counter[]>(threads);
  std::atomic<bool> stop{false};
  std::vector<std::thread> running;
  for (int i = 0; i < threads; ++i) {
    running.push_back(StartThread("sy-limit", [&, i] {
      PinTo(i);
      while (!stop.load(std::memory_order_relaxed)) {
        piece(i);
        counters[i].pieces.fetch_add(1, std::memory_order_relaxed);
      }
    }));
  }
  std::vector<double> rates;
  const double end = Now() + seconds;
  // Until every thread has begun, and (on a machine so busy that a whole window
  // goes by without us) until there is something to tell.
  for (int window = 0; rates.empty() || Now() < end; ++window) {
    const int64_t before = Sum(counters.get(), threads).pieces;
    const double start = Now();
    absl::SleepFor(kWindow);
    const Progress after = Sum(counters.get(), threads);
    const double taken = Now() - start;
    if (window >= kWarmUpWindows && after.all_begun && after.pieces > before) {
      rates.push_back(static_cast<double>(after.pieces - before) * piece_size /
                      taken);
    }
  }
  stop.store(true, std::memory_order_relaxed);
  for (std::thread& thread : running) thread.join();
  std::sort(rates.begin(), rates.end());
  return {rates[rates.size() / 2], rates.back()};
}

}  // namespace switchyard::bench
