// What a benchmark is doing, on stderr.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_PROGRESS_LINES_H_
#define SWITCHYARD_SWITCHYARD_BENCH_PROGRESS_LINES_H_

#include <cstdint>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace switchyard::bench {

// One thread's.
class ProgressLines {
 public:
  void Say(const std::string& line);
  // Once a second at most: how far something is, in bytes.
  void Report(const char* doing, int64_t done, int64_t total);

 private:
  absl::Time next_ = absl::Now() + absl::Seconds(1);
};

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_PROGRESS_LINES_H_
