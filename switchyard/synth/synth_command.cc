#include "switchyard/synth/synth_command.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/compute_pool.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "model/checkpoint_base.h"
#include "model/config.h"
#include "model/conversion/convert.h"
#include "model/conversion/huggingface_writer.h"
#include "model/conversion/random_source.h"
#include "model/weight_formats.h"
#include "switchyard/progress/progress_bar.h"
#include "switchyard/synth/byte_tokenizer.h"
#include "switchyard/synth/synth_config.h"

namespace switchyard {
namespace {

constexpr char kHuggingFaceFormat[] = "hf-bf16";

absl::Status CheckOptions(const SynthOptions& options) {
  if (options.out_dir.empty()) {
    return absl::InvalidArgumentError("no directory to write: give --out");
  }
  if (options.num_layers < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("--layers ", options.num_layers,
                     ": must be positive, or 0 for the "
                     "config's own number"));
  }
  if (options.threads < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--threads ", options.threads, ": must be positive, or 0 for all"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<model::CompanionFile>> Companions(
    const SynthOptions& options, const std::string& config_json,
    const model::ModelConfig& config) {
  std::vector<model::CompanionFile> files;
  if (options.tokenizer_dir.empty()) {
    SY_ASSIGN_OR_RETURN(files, ByteTokenizerFiles(config.vocab_size));
  } else {
    SY_ASSIGN_OR_RETURN(std::vector<model::CompanionFile> found,
                        model::ReadCompanionFiles(options.tokenizer_dir));
    for (model::CompanionFile& file : found) {
      if (file.name != model::kConfigFile) files.push_back(std::move(file));
    }
    if (files.empty()) {
      return absl::NotFoundError(
          absl::StrCat(options.tokenizer_dir,
                       ": there are no tokenizer files (--tokenizer)"));
    }
  }
  files.push_back({model::kConfigFile, config_json});
  return files;
}

}  // namespace

absl::Status RunSynth(const SynthOptions& options, std::ostream& out,
                      bool terminal) {
  SY_RETURN_IF_ERROR(CheckOptions(options));
  const bool huggingface = options.format == kHuggingFaceFormat;
  model::WeightFormats formats;
  if (!huggingface) {
    const absl::StatusOr<model::WeightFormats> parsed =
        model::ParseWeightFormats(options.format);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--format: ", parsed.status().message(), "; so is ",
                       kHuggingFaceFormat, ", Hugging Face's layout"));
    }
    formats = *parsed;
  }
  std::string base;
  if (!options.config_path.empty()) {
    SY_ASSIGN_OR_RETURN(base,
                        ReadFile(options.config_path, model::kMaxConfigBytes));
  }
  SY_ASSIGN_OR_RETURN(const std::string config_json,
                      SynthConfig(base, options.overrides, options.num_layers));
  SY_ASSIGN_OR_RETURN(const model::ModelConfig config,
                      model::ParseModelConfig(config_json));
  SY_ASSIGN_OR_RETURN(std::vector<model::CompanionFile> companions,
                      Companions(options, config_json, config));
  const std::unique_ptr<model::WeightSource> source =
      model::NewRandomSource(config, options.mtp, options.seed);
  const std::unique_ptr<ComputePool> pool = NewThreadPool(
      options.threads > 0 ? options.threads : AvailableCpus(), "synth");
  int64_t bytes = 0;
  {
    ProgressBar bar({.doing = "writing",
                     .out = &out,
                     .terminal = terminal,
                     .clock = Clock::Real()});
    const model::ConversionProgress progress = [&](int64_t done,
                                                   int64_t total) {
      bytes = total;
      bar.Report(done, total);
    };
    if (huggingface) {
      SY_RETURN_IF_ERROR(model::WriteHuggingFaceCheckpoint(
          {.source = source.get(),
           .out_dir = options.out_dir,
           .companions = std::move(companions),
           .pool = pool.get(),
           .progress = progress}));
    } else {
      SY_RETURN_IF_ERROR(
          model::WriteConvertedCheckpoint({.source = source.get(),
                                           .out_dir = options.out_dir,
                                           .formats = formats,
                                           .companions = std::move(companions),
                                           .pool = pool.get(),
                                           .progress = progress}));
    }
  }
  out << absl::StrFormat("%s: %d layers of random weights, %s; %.3f GB\n",
                         options.out_dir, config.num_hidden_layers,
                         options.format, static_cast<double>(bytes) / 1e9)
      << std::flush;
  return absl::OkStatus();
}

}  // namespace switchyard
