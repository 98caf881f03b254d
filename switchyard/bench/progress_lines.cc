#include "switchyard/bench/progress_lines.h"

#include <cstdio>

#include "absl/strings/str_format.h"

namespace switchyard::bench {

void ProgressLines::Say(const std::string& line) {
  std::fprintf(stderr, "%s\n", line.c_str());
}

void ProgressLines::Report(const char* doing, int64_t done, int64_t total) {
  const absl::Time now = absl::Now();
  if (now < next_) return;
  next_ = now + absl::Seconds(1);
  Say(absl::StrFormat("%s: %d of %d MB", doing, done / 1'000'000,
                      total / 1'000'000));
}

}  // namespace switchyard::bench
