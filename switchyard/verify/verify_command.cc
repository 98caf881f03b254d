#include "switchyard/verify/verify_command.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/compute_pool.h"
#include "base/status_macros.h"
#include "model/conversion/verify.h"
#include "switchyard/progress/progress_bar.h"

namespace switchyard {

absl::Status RunVerify(const VerifyCommandOptions& options, std::ostream& out,
                       bool terminal) {
  if (options.threads < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--threads ", options.threads, ": must be positive, or 0 for all"));
  }
  const std::unique_ptr<ComputePool> pool = NewThreadPool(
      options.threads > 0 ? options.threads : AvailableCpus(), "verify");
  model::VerifyReport report;
  {
    ProgressBar bar({.doing = "verifying",
                     .out = &out,
                     .terminal = terminal,
                     .clock = Clock::Real()});
    SY_ASSIGN_OR_RETURN(
        report, model::VerifyCheckpoint(options.model_dir, pool.get(),
                                        [&](int64_t done, int64_t total) {
                                          bar.Report(done, total);
                                        }));
  }
  for (const std::string& line : report.damaged) out << line << "\n";
  if (!report.damaged.empty()) {
    out << std::flush;
    return absl::DataLossError(
        absl::StrCat(options.model_dir, ": ", report.damaged.size(), " of ",
                     report.num_checked, " checksums are wrong"));
  }
  out << absl::StrFormat("%s: all %d checksums are right, %.3f GB\n",
                         options.model_dir, report.num_checked,
                         static_cast<double>(report.bytes) / 1e9)
      << std::flush;
  return absl::OkStatus();
}

}  // namespace switchyard
