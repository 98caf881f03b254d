#include "switchyard/progress/progress_bar.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard {
namespace {

constexpr absl::Duration kQuiet = absl::Milliseconds(500);
constexpr absl::Duration kRedraw = absl::Milliseconds(100);
constexpr absl::Duration kNextLine = absl::Seconds(5);
constexpr int kCells = 24;
constexpr double kMegabyte = 1e6;
constexpr double kGigabyte = 1e9;

std::string TimeLeft(absl::Duration left) {
  const int64_t seconds =
      absl::ToInt64Seconds(absl::Ceil(left, absl::Seconds(1)));
  if (seconds >= 3600) {
    return absl::StrFormat("%d:%02d:%02d left", seconds / 3600,
                           seconds / 60 % 60, seconds % 60);
  }
  return absl::StrFormat("%d:%02d left", seconds / 60, seconds % 60);
}

}  // namespace

ProgressBar::ProgressBar(const Options& options)
    : options_(options), start_(options.clock->Now()), next_(start_ + kQuiet) {}

ProgressBar::~ProgressBar() {
  if (drawn_ > 0) *options_.out << std::endl;
}

void ProgressBar::Report(int64_t done, int64_t total) {
  if (done_before_ < 0) done_before_ = done;
  const absl::Time now = options_.clock->Now();
  // The last state is drawn if any was.
  if (now < next_ && !(done == total && drawn_ > 0)) return;
  next_ = now + (options_.terminal ? kRedraw : kNextLine);
  const std::string text = Text(done, total, now);
  if (!options_.terminal) {
    *options_.out << text << std::endl;
    return;
  }
  *options_.out << '\r' << text
                << std::string(drawn_ - std::min(drawn_, text.size()), ' ')
                << std::flush;
  drawn_ = text.size();
}

std::string ProgressBar::Text(int64_t done, int64_t total,
                              absl::Time now) const {
  const double part =
      total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1;
  const int full = static_cast<int>(part * kCells);
  std::string text = absl::StrFormat(
      "%s [%s%s] %3d%%  %.2f of %.2f GB", options_.doing,
      std::string(full, '#'), std::string(kCells - full, '.'),
      static_cast<int>(part * 100), static_cast<double>(done) / kGigabyte,
      static_cast<double>(total) / kGigabyte);
  const double seconds = absl::ToDoubleSeconds(now - start_);
  const double rate = static_cast<double>(done - done_before_) / seconds;
  if (rate > 0) {
    absl::StrAppend(
        &text, absl::StrFormat("  %.0f MB/s  ", rate / kMegabyte),
        TimeLeft(absl::Seconds(static_cast<double>(total - done) / rate)));
  }
  return text;
}

}  // namespace switchyard
