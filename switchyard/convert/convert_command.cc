#include "switchyard/convert/convert_command.h"

#include <cstdint>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/compute_pool.h"
#include "base/status_macros.h"
#include "model/conversion/convert.h"
#include "switchyard/progress/progress_bar.h"

namespace switchyard {
namespace {

absl::Status Override(const char* flag, const std::string& name,
                      model::WeightFormat* format) {
  if (name.empty()) return absl::OkStatus();
  const absl::StatusOr<model::WeightFormat> parsed =
      model::ParseWeightFormat(name);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": ", parsed.status().message()));
  }
  *format = *parsed;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<model::WeightFormats> FormatsFromFlags(
    const FormatFlags& flags) {
  const bool complete =
      !flags.experts.empty() && !flags.dense.empty() && !flags.lm_head.empty();
  if (flags.format.empty() && !complete) {
    return absl::InvalidArgumentError(
        "--format is missing: q8, q4, q4-q8, bf16dot, bf16 or source (or all "
        "three of "
        "--experts, --dense and --lm-head)");
  }
  model::WeightFormats formats;
  if (!flags.format.empty()) {
    const absl::StatusOr<model::WeightFormats> parsed =
        model::ParseWeightFormats(flags.format);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--format: ", parsed.status().message()));
    }
    formats = *parsed;
  }
  SY_RETURN_IF_ERROR(Override("--experts", flags.experts, &formats.experts));
  SY_RETURN_IF_ERROR(Override("--dense", flags.dense, &formats.dense));
  SY_RETURN_IF_ERROR(Override("--lm-head", flags.lm_head, &formats.lm_head));
  return formats;
}

absl::Status RunConvert(const ConvertCommandOptions& options, std::ostream& out,
                        bool terminal) {
  if (options.out_dir.empty()) {
    return absl::InvalidArgumentError("no directory to write: give --out");
  }
  if (options.threads < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--threads ", options.threads, ": must be positive, or 0 for all"));
  }
  model::ConvertOptions convert;
  convert.model_dir = options.model_dir;
  convert.out_dir = options.out_dir;
  SY_ASSIGN_OR_RETURN(convert.formats, FormatsFromFlags(options.formats));
  const std::unique_ptr<ComputePool> pool = NewThreadPool(
      options.threads > 0 ? options.threads : AvailableCpus(), "convert");
  convert.pool = pool.get();
  int64_t bytes = 0;
  const absl::Time start = Clock::Real()->Now();
  {
    ProgressBar bar({.doing = "converting",
                     .out = &out,
                     .terminal = terminal,
                     .clock = Clock::Real()});
    convert.progress = [&](int64_t done, int64_t total) {
      bytes = total;
      bar.Report(done, total);
    };
    SY_RETURN_IF_ERROR(model::ConvertCheckpoint(convert));
  }
  out << absl::StrFormat(
             "%s: %s; %.3f GB in %s\n", options.out_dir,
             model::DescribeFormats(convert.formats),
             static_cast<double>(bytes) / 1e9,
             absl::FormatDuration(absl::Trunc(Clock::Real()->Now() - start,
                                              absl::Milliseconds(100))))
      << std::flush;
  return absl::OkStatus();
}

}  // namespace switchyard
