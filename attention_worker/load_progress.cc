#include "attention_worker/load_progress.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/log.h"

namespace switchyard::attention_worker {
namespace {

// Between two log lines about a load in progress.
constexpr absl::Duration kLinePeriod = absl::Seconds(1);

}  // namespace

LoadProgress::LoadProgress(metrics::Registry* registry)
    : gauge_(registry->AddGauge(
          "switchyard_loading_progress",
          "Share of the weights that are in memory, 0 to 1.")) {}

void LoadProgress::Report(int64_t done, int64_t total) {
  const double share =
      bytes_total_ <= 0
          ? 0
          : std::min(1.0, static_cast<double>(bytes_done_ + done) /
                              static_cast<double>(bytes_total_));
  std::string message =
      absl::StrFormat("%s, %d of %d MiB", phase_, done >> 20, total >> 20);
  const absl::Time now = absl::Now();
  if (now >= next_line_) {
    next_line_ = now + kLinePeriod;
    LogInfo(message);
  }
  MutexLock lock(&mutex_);
  share_ = std::max(share_, share);
  gauge_->Set(share_);
  message_ = std::move(message);
}

void LoadProgress::Finish() {
  MutexLock lock(&mutex_);
  share_ = 1;
  gauge_->Set(share_);
}

double LoadProgress::share() const {
  MutexLock lock(&mutex_);
  return share_;
}

std::string LoadProgress::message() const {
  MutexLock lock(&mutex_);
  return message_;
}

}  // namespace switchyard::attention_worker
