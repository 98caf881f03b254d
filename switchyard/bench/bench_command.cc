#include "switchyard/bench/bench_command.h"

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "attention_worker/memory_plan.h"
#include "attention_worker/state/kv_dtype.h"
#include "base/cpu_set.h"
#include "base/status_macros.h"
#include "fabric/wire/expert_terms.h"
#include "kernels/kernel_table.h"
#include "model/weight_copies.h"
#include "model/weight_names.h"
#include "switchyard/bench/accounting.h"
#include "switchyard/bench/bench_model.h"
#include "switchyard/bench/measure.h"
#include "switchyard/bench/progress_lines.h"
#include "switchyard/bench/report.h"
#include "switchyard/bench/result_file.h"

namespace switchyard {
namespace {

using bench::BenchModel;
using bench::MeasuredLimits;
using bench::Measurement;
using bench::Report;
using bench::SocketKind;

constexpr int64_t kMaxBatch = 4096;
constexpr int kMaxThreads = 4096;
constexpr int64_t kMaxWorkers = 64;
// For each limit, between two repetitions.
constexpr double kBesideSeconds = 0.12;

bool Wants(const BenchOptions& options, const char* what) {
  return std::find(options.only.begin(), options.only.end(), what) !=
         options.only.end();
}

absl::Status InRange(const char* flag, int64_t value, int64_t least,
                     int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "--", flag, " is ", value, "; it must be ", least, " to ", most));
}

absl::Status AllInRange(const char* flag, const std::vector<int64_t>& values,
                        int64_t least, int64_t most) {
  if (values.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--", flag, " is empty; give at least one number"));
  }
  for (const int64_t value : values) {
    SY_RETURN_IF_ERROR(InRange(flag, value, least, most));
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const BenchOptions& options) {
  constexpr int64_t kMaxTokens = int64_t{1} << 24;
  SY_RETURN_IF_ERROR(InRange("threads", options.threads, 0, kMaxThreads));
  SY_RETURN_IF_ERROR(AllInRange("batch", options.batches, 1, kMaxBatch));
  SY_RETURN_IF_ERROR(AllInRange("context", options.contexts, 0, kMaxTokens));
  SY_RETURN_IF_ERROR(AllInRange("prompt", options.prompts, 1, kMaxTokens));
  SY_RETURN_IF_ERROR(InRange("repeat", options.repeat, 1, 1000));
  SY_RETURN_IF_ERROR(InRange("steps", options.steps, 1, 1'000'000));
  SY_RETURN_IF_ERROR(
      InRange("chunked_prefill_size", options.prefill_chunk, 1, kMaxTokens));
  SY_RETURN_IF_ERROR(
      InRange("expert_workers", options.expert_workers, 0, kMaxWorkers));
  SY_RETURN_IF_ERROR(
      InRange("worker_threads", options.worker_threads, 1, kMaxThreads));
  if (options.transport != "tcp" && options.transport != "unix") {
    return absl::InvalidArgumentError(absl::StrCat(
        "--transport is '", options.transport, "'; it must be tcp or unix"));
  }
  for (const std::string& part : options.only) {
    if (part != "decode" && part != "prefill" && part != "limits") {
      return absl::InvalidArgumentError(absl::StrCat(
          "--only has '", part,
          "'; it may have decode, prefill and limits, separated by commas"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckContexts(const BenchOptions& options,
                           const model::ModelConfig& config) {
  int64_t longest = 0;
  if (Wants(options, "decode")) {
    longest =
        *std::max_element(options.contexts.begin(), options.contexts.end()) +
        options.repeat * options.steps + 2;
  }
  if (Wants(options, "prefill")) {
    longest = std::max(longest, *std::max_element(options.prompts.begin(),
                                                  options.prompts.end()));
  }
  if (longest > config.max_position_embeddings) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the longest sequence would have ", longest, " tokens; the context of ",
        options.model_dir, " is ", config.max_position_embeddings,
        ": give smaller --context, --prompt, --steps or --repeat"));
  }
  return absl::OkStatus();
}

MeasuredLimits MeasureLimits(double seconds, int threads) {
  return {
      .read = bench::MeasureRead(threads, bench::PageSize::kHuge, seconds),
      .int8 = bench::MeasureOperations(bench::BestInt8(), threads, seconds),
      .fma = bench::MeasureOperations(bench::BestFma(), threads, seconds),
      .bf16 = bench::MeasureOperations(bench::BestBf16(), threads, seconds)};
}

const char* FormatName(kernels::DType dtype) {
  switch (dtype) {
    case kernels::DType::kBF16:
      return "bf16";
    case kernels::DType::kF16:
      return "f16";
    case kernels::DType::kF32:
      return "f32";
    case kernels::DType::kQ8:
      return "q8";
    case kernels::DType::kQ4:
      return "q4";
    case kernels::DType::kBF16Dot:
      return "bf16dot";
  }
  return "";
}

// Of a tensor; "none" if the model has no such one.
std::string FormatOf(const model::Checkpoint& checkpoint,
                     const std::string& name) {
  const auto view = checkpoint.Find(name);
  return view.ok() ? FormatName(view->dtype) : "none";
}

absl::Status DescribeModel(const model::Checkpoint& checkpoint,
                           bool experts_here, Report* report) {
  const model::ModelConfig& config = checkpoint.config();
  SY_ASSIGN_OR_RETURN(const bench::Accounting accounting,
                      bench::Accounting::ForCheckpoint(checkpoint));
  SY_ASSIGN_OR_RETURN(const attention_worker::WeightBytes weights,
                      attention_worker::MeasureWeights(checkpoint));
  report->model_dir = checkpoint.directory();
  report->fingerprint = checkpoint.fingerprint();
  report->layers = config.num_hidden_layers;
  report->expert_format = FormatName(checkpoint.expert_dtype());
  report->dense_format = FormatOf(
      checkpoint,
      absl::StrCat(model::LayerPrefix(config, 0),
                   config.layer_types[0] == model::LayerType::kFullAttention
                       ? "self_attn.o_proj.weight"
                       : "linear_attn.out_proj.weight"));
  report->lm_head_format = FormatOf(checkpoint, model::kLmHeadName);
  if (report->lm_head_format == "none") {
    report->lm_head_format = FormatOf(checkpoint, model::kEmbeddingName);
  }
  report->active_weights = accounting.active_weights();
  report->active_bytes = accounting.active_bytes();
  report->weight_bytes = weights.others + (experts_here ? weights.experts : 0);
  return absl::OkStatus();
}

// One token's rows to every worker and its experts' outputs back.
absl::Status MeasureSockets(const BenchOptions& options,
                            const model::Checkpoint& checkpoint,
                            Report* report) {
  const model::ModelConfig& config = checkpoint.config();
  const int64_t workers = options.expert_workers;
  const int64_t hidden = config.hidden_size;
  const int64_t pairs_each =
      (config.num_experts_per_tok + workers - 1) / workers;
  bench::SocketExchange exchange;
  exchange.kind = report->transport;
  exchange.peers = static_cast<int>(workers);
  exchange.request_bytes = fabric::ActivationRowBytes(
      fabric::ActivationFormatOf(
          fabric::WeightFormatOf(checkpoint.expert_dtype())),
      hidden);
  exchange.reply_bytes = std::max<int64_t>(1, 4 * hidden * pairs_each);
  for (const bool spin : {false, true}) {
    exchange.spin = spin;
    SY_ASSIGN_OR_RETURN(
        const bench::RoundTrip round_trip,
        bench::MeasureRoundTrip(exchange, options.limit_seconds));
    report->sockets.push_back({spin, round_trip});
  }
  return absl::OkStatus();
}

absl::Status MeasureAll(const BenchOptions& options, BenchModel* model,
                        bench::ProgressLines* progress, Report* report) {
  bench::MeasureOptions measure;
  measure.repeat = static_cast<int>(options.repeat);
  measure.decode_steps = options.steps;
  measure.prefill_chunk = options.prefill_chunk;
  measure.max_seconds = options.max_seconds;
  measure.measure_limits = [&options, &before = report->before,
                            threads = report->limit_threads] {
    const MeasuredLimits limits =
        options.limit_seconds > 0
            ? MeasureLimits(std::min(options.limit_seconds, kBesideSeconds),
                            threads)
            : before;
    return bench::MachineLimits{.read_bytes = limits.read.median,
                                .integer_operations = limits.int8.median,
                                .float_operations = limits.fma.median,
                                .bf16_operations = limits.bf16.median};
  };
  const bool decode = Wants(options, "decode");
  const bool prefill = Wants(options, "prefill");
  const size_t total =
      (decode ? options.batches.size() * options.contexts.size() : 0) +
      (prefill ? options.prompts.size() : 0);
  const auto add = [&](Measurement measurement) {
    progress->Say(absl::StrFormat(
        "%d of %d: %.2f tokens/s", report->measurements.size() + 1, total,
        measurement.TokensPerSecond(measurement.Median())));
    report->measurements.push_back(std::move(measurement));
  };
  if (decode) {
    for (const int64_t context : options.contexts) {
      for (const int64_t batch : options.batches) {
        progress->Say(absl::StrFormat("decode: %d sequences after %d tokens",
                                      batch, context));
        SY_ASSIGN_OR_RETURN(
            Measurement measurement,
            bench::MeasureDecode(model, batch, context, measure));
        add(std::move(measurement));
      }
    }
  }
  if (prefill) {
    for (const int64_t prompt : options.prompts) {
      progress->Say(absl::StrFormat("prefill: %d tokens", prompt));
      SY_ASSIGN_OR_RETURN(Measurement measurement,
                          bench::MeasurePrefill(model, prompt, measure));
      add(std::move(measurement));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> ParseNumbers(absl::string_view flag,
                                                  absl::string_view text,
                                                  int64_t least) {
  std::vector<int64_t> numbers;
  for (const absl::string_view part :
       absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(part, &number) || number < least) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", flag, ": '", part, "' is no number of ", least,
                       " or more; give numbers as in 1,4,16"));
    }
    numbers.push_back(number);
  }
  return numbers;
}

absl::Status RunBench(const BenchOptions& options, std::ostream& out) {
  SY_RETURN_IF_ERROR(CheckOptions(options));
  SY_RETURN_IF_ERROR(kernels::SelectKernels(options.isa));
  bench::ProgressLines progress;
  Report report;
  report.cpu = bench::CpuName();
  report.isa = kernels::Kernels().name;
  SY_ASSIGN_OR_RETURN(const std::vector<int> cpus, ParseCpuList(options.cpus));
  SY_RETURN_IF_ERROR(CheckThreads(options.threads, cpus));
  SY_ASSIGN_OR_RETURN(const model::WeightPlacement weights,
                      model::ParseWeightPlacement(options.weights));
  SY_ASSIGN_OR_RETURN(const model::Activations activations,
                      model::ParseActivations(options.activations));
  SY_ASSIGN_OR_RETURN(
      const attention_worker::KvCacheDType kv_cache_dtype,
      attention_worker::ParseKvCacheDType(options.kv_cache_dtype));
  report.threads = ThreadCount(options.threads, cpus);
  report.prefill_chunk = options.prefill_chunk;
  report.expert_workers = static_cast<int>(options.expert_workers);
  report.transport =
      options.transport == "unix" ? SocketKind::kUnix : SocketKind::kTcp;
  report.worker_threads = static_cast<int>(options.worker_threads);
  // Attention and experts take turns: together they are never more than the
  // machine has.
  report.limit_threads =
      std::max<int>(report.threads,
                    std::min<int>(AvailableCpus(),
                                  report.threads + report.expert_workers *
                                                       report.worker_threads));

  SY_ASSIGN_OR_RETURN(const std::unique_ptr<model::Checkpoint> checkpoint,
                      model::Checkpoint::Open(options.model_dir, activations));
  BenchModel::Options model_options;
  model_options.checkpoint = checkpoint.get();
  model_options.threads = report.threads;
  model_options.cpus = cpus;
  model_options.weights = weights;
  model_options.kv_dtype =
      attention_worker::KvDTypeFor(kv_cache_dtype, *checkpoint);
  report.kv_cache_dtype = attention_worker::KvDTypeName(model_options.kv_dtype);
  model_options.workers.count = report.expert_workers;
  model_options.workers.transport = report.transport;
  model_options.workers.threads = report.worker_threads;
  model_options.workers.isa = options.isa;
  model_options.workers.activations = options.activations;
  model_options.workers.weights = options.weights;
  model_options.progress = [&progress](const char* doing, int64_t done,
                                       int64_t total) {
    progress.Report(doing, done, total);
  };
  SY_RETURN_IF_ERROR(CheckContexts(options, checkpoint->config()));
  SY_RETURN_IF_ERROR(
      DescribeModel(*checkpoint, report.expert_workers == 0, &report));

  progress.Say("measuring the machine's limits");
  report.before = MeasureLimits(options.limit_seconds, report.limit_threads);
  if (Wants(options, "decode") || Wants(options, "prefill")) {
    SY_ASSIGN_OR_RETURN(const std::unique_ptr<BenchModel> model,
                        BenchModel::Create(std::move(model_options)));
    SY_RETURN_IF_ERROR(MeasureAll(options, model.get(), &progress, &report));
    if (model->workers() != nullptr) {
      report.worker_resident_bytes = model->workers()->ResidentBytes();
      SY_RETURN_IF_ERROR(MeasureSockets(options, *checkpoint, &report));
    }
  }
  progress.Say("measuring the machine's limits again");
  report.after = MeasureLimits(options.limit_seconds, report.limit_threads);

  out << bench::ReportText(report);
  out.flush();
  if (options.json_path.empty()) return absl::OkStatus();
  return bench::WriteResultFile(options.json_path, bench::ReportJson(report));
}

}  // namespace switchyard
