// How far a long command is: a bar that is drawn over itself on a terminal, a
// line now and then elsewhere.

#ifndef SWITCHYARD_SWITCHYARD_PROGRESS_PROGRESS_BAR_H_
#define SWITCHYARD_SWITCHYARD_PROGRESS_PROGRESS_BAR_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/time/time.h"
#include "base/clock.h"

namespace switchyard {

// One thread. Draws at most ten times a second, or every five seconds where
// there is no terminal, and what is done in the first half second not at all.
class ProgressBar {
 public:
  struct Options {
    std::string doing;             // "converting"
    std::ostream* out;             // not owned
    bool terminal = false;         // whether `out` is one
    const Clock* clock = nullptr;  // not owned
  };
  explicit ProgressBar(const Options& options);
  // Ends the line that is drawn, if any.
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // Bytes done and in all. The first call says what was done before this run:
  // rate and time left count from there.
  void Report(int64_t done, int64_t total);

 private:
  std::string Text(int64_t done, int64_t total, absl::Time now) const;

  const Options options_;
  const absl::Time start_;
  absl::Time next_;
  int64_t done_before_ = -1;
  size_t drawn_ = 0;  // characters of the line on the terminal
};

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_PROGRESS_PROGRESS_BAR_H_
