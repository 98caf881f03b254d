#include "switchyard/bench/serving/serving_command.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/cpu_set.h"
#include "base/status_macros.h"
#include "kernels/kernel_table.h"
#include "model/checkpoint.h"
#include "model/weight_copies.h"
#include "switchyard/bench/limits/limits.h"
#include "switchyard/bench/progress_lines.h"
#include "switchyard/bench/result_file.h"
#include "switchyard/bench/serving/report.h"
#include "switchyard/bench/serving/serving_model.h"

namespace switchyard {
namespace {

using bench::ServingModel;
using bench::ServingReport;

constexpr int64_t kMaxTokens = int64_t{1} << 24;
constexpr int64_t kMaxStreams = 4096;
constexpr int kMaxThreads = 4096;

absl::Status InRange(absl::string_view what, int64_t value, int64_t least,
                     int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " is ", value, "; it must be ", least, " to ", most));
}

absl::Status AllInRange(absl::string_view what,
                        const std::vector<int64_t>& values, int64_t least,
                        int64_t most) {
  if (values.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " is empty; give at least one number"));
  }
  for (const int64_t value : values) {
    SY_RETURN_IF_ERROR(InRange(what, value, least, most));
  }
  return absl::OkStatus();
}

// A part of the benchmark: its measurement goes to the report.
struct Part {
  const char* name;
  absl::Status (*measure)(const BenchServingOptions& options,
                          ServingModel* model, ServingReport* report);
};

// At most three quarters of the context: the rest is for what is generated.
int64_t ThatFit(int64_t tokens, const ServingModel& model) {
  return std::min(tokens, std::max<int64_t>(1, model.context() * 3 / 4));
}

absl::Status Conversation(const BenchServingOptions& options,
                          ServingModel* model, ServingReport* report) {
  bench::ConversationOptions part = options.conversation;
  const int64_t later = part.turns * (part.turn_tokens + part.answer_tokens);
  part.first_tokens = std::min(part.first_tokens,
                               std::max<int64_t>(1, model->context() - later));
  SY_ASSIGN_OR_RETURN(report->conversation,
                      bench::MeasureConversation(model, part));
  return absl::OkStatus();
}

absl::Status Prefix(const BenchServingOptions& options, ServingModel* model,
                    ServingReport* report) {
  bench::PrefixOptions part = options.prefix;
  part.prefix_tokens = ThatFit(part.prefix_tokens, *model);
  for (const bool boundary : {true, false}) {
    SY_ASSIGN_OR_RETURN(const bench::PrefixResult result,
                        bench::MeasurePrefix(model, boundary, part));
    report->prefix.push_back(result);
  }
  return absl::OkStatus();
}

absl::Status Drafts(const BenchServingOptions& options, ServingModel* model,
                    ServingReport* report) {
  SY_ASSIGN_OR_RETURN(report->drafts,
                      bench::MeasureDrafts(model, options.drafts));
  return absl::OkStatus();
}

absl::Status Concurrency(const BenchServingOptions& options,
                         ServingModel* model, ServingReport* report) {
  SY_ASSIGN_OR_RETURN(report->concurrency,
                      bench::MeasureConcurrency(model, options.concurrency));
  return absl::OkStatus();
}

absl::Status Stall(const BenchServingOptions& options, ServingModel* model,
                   ServingReport* report) {
  bench::StallOptions part = options.stall;
  part.long_tokens = ThatFit(part.long_tokens, *model);
  SY_ASSIGN_OR_RETURN(report->stall, bench::MeasureStall(model, part));
  return absl::OkStatus();
}

absl::Status Mixed(const BenchServingOptions& options, ServingModel* model,
                   ServingReport* report) {
  SY_ASSIGN_OR_RETURN(report->mixed, bench::MeasureMixed(model, options.mixed));
  return absl::OkStatus();
}

constexpr Part kParts[] = {
    {"conversation", Conversation}, {"prefix", Prefix}, {"drafts", Drafts},
    {"concurrency", Concurrency},   {"stall", Stall},   {"mixed", Mixed},
};

bool Contains(const std::vector<std::string>& names, absl::string_view name) {
  return std::any_of(names.begin(), names.end(),
                     [name](const std::string& one) {
                       return absl::string_view(one) == name;
                     });
}

absl::Status CheckOptions(const BenchServingOptions& options) {
  for (const std::string& name : options.only) {
    const bool known =
        std::any_of(std::begin(kParts), std::end(kParts),
                    [&name](const Part& part) { return name == part.name; });
    if (known) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--only has '", name, "'; it may have ",
                     absl::StrJoin(kParts, ", ",
                                   [](std::string* text, const Part& part) {
                                     absl::StrAppend(text, part.name);
                                   }),
                     ", separated by commas"));
  }
  SY_RETURN_IF_ERROR(InRange("--repeat", options.conversation.repeat, 1, 1000));
  SY_RETURN_IF_ERROR(InRange("--repeat", options.drafts.repeat, 1, 1000));
  SY_RETURN_IF_ERROR(InRange("--chunked_prefill_size",
                             options.conversation.prefill_chunk, 1,
                             kMaxTokens));
  SY_RETURN_IF_ERROR(
      AllInRange("--draft_batch", options.drafts.batches, 1, 1024));
  SY_RETURN_IF_ERROR(
      AllInRange("--concurrency", options.concurrency.streams, 1, kMaxStreams));
  SY_RETURN_IF_ERROR(
      AllInRange("--stall_chunks", options.stall.chunks, 1, kMaxTokens));
  SY_RETURN_IF_ERROR(
      InRange("--long_prompt", options.stall.long_tokens, 1, kMaxTokens));
  SY_RETURN_IF_ERROR(InRange("--threads", options.threads, 0, kMaxThreads));
  return InRange("--sessions", options.mixed.sessions, 1, 10'000'000);
}

}  // namespace

absl::Status RunBenchServing(const BenchServingOptions& options,
                             std::ostream& out) {
  SY_RETURN_IF_ERROR(CheckOptions(options));
  SY_RETURN_IF_ERROR(kernels::SelectKernels(options.isa));
  SY_ASSIGN_OR_RETURN(const std::vector<int> cpus, ParseCpuList(options.cpus));
  SY_RETURN_IF_ERROR(CheckThreads(options.threads, cpus));
  SY_ASSIGN_OR_RETURN(const model::WeightPlacement weights,
                      model::ParseWeightPlacement(options.weights));
  SY_ASSIGN_OR_RETURN(const model::Activations activations,
                      model::ParseActivations(options.activations));
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<model::Checkpoint> checkpoint,
                      model::Checkpoint::Open(options.model_dir, activations));
  ServingReport report;
  report.model_dir = options.model_dir;
  report.fingerprint = checkpoint->fingerprint();
  report.cpu = bench::CpuName();
  report.isa = kernels::Kernels().name;
  report.threads = ThreadCount(options.threads, cpus);
  report.context = checkpoint->config().max_position_embeddings;

  bench::ProgressLines progress;
  ServingModel::Options model_options;
  model_options.checkpoint = checkpoint.get();
  model_options.threads = report.threads;
  model_options.cpus = cpus;
  model_options.weights = weights;
  model_options.progress = [&progress](const char* doing, int64_t done,
                                       int64_t total) {
    progress.Report(doing, done, total);
  };
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<ServingModel> model,
                      ServingModel::Create(std::move(model_options)));
  for (const Part& part : kParts) {
    if (!options.only.empty() && !Contains(options.only, part.name)) continue;
    if (options.only.empty() && part.measure == Drafts && !model->has_mtp()) {
      progress.Say("drafts: left out, the model has no MTP head");
      continue;
    }
    progress.Say(part.name);
    SY_RETURN_IF_ERROR(part.measure(options, model.get(), &report));
  }
  out << bench::ServingText(report);
  out.flush();
  if (options.json_path.empty()) return absl::OkStatus();
  return bench::WriteResultFile(options.json_path, bench::ServingJson(report));
}

}  // namespace switchyard
