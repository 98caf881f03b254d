#include "switchyard/bench/report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "attention_worker/layers/step_timer.h"
#include "base/json.h"
#include "base/version.h"

namespace switchyard::bench {
namespace {

using attention_worker::kNumStepParts;
using attention_worker::StepPart;
using attention_worker::StepPartName;

constexpr int kSchemaVersion = 1;

double Ratio(double a, double b) { return b > 0 ? a / b : 0; }

// What a measurement's median repetition did a second, and how near that is to
// the limits measured beside it; the roofline's share is the median of all
// repetitions' own.
struct Rates {
  double seconds_per_step = 0;
  double bytes = 0;               // a second
  double integer_operations = 0;  // a second
  double float_operations = 0;    // a second
  double bf16_operations = 0;     // a second
  double read_share = 0;
  double int8_share = 0;
  double roofline_share = 0;
};

Rates RatesOf(const Measurement& measurement) {
  const MachineLimits& limits = measurement.Median().limits;
  const double seconds = measurement.Median().seconds;
  const Cost cost = Total(measurement.cost);
  Rates rates;
  rates.seconds_per_step =
      Ratio(seconds, static_cast<double>(measurement.steps));
  rates.bytes = Ratio(cost.bytes(), seconds);
  rates.integer_operations = Ratio(cost.integer_operations, seconds);
  rates.float_operations = Ratio(cost.float_operations, seconds);
  rates.bf16_operations = Ratio(cost.bf16_operations, seconds);
  rates.read_share = Ratio(rates.bytes, limits.read_bytes);
  rates.int8_share = Ratio(rates.integer_operations, limits.integer_operations);
  rates.roofline_share = measurement.RooflineShare();
  return rates;
}

std::string Describe(const Measurement& m) {
  return m.phase == Phase::kPrefill
             ? absl::StrFormat("prefill %6d", m.tokens)
             : absl::StrFormat("decode %2d x %-6d", m.batch, m.context);
}

const char* TransportName(SocketKind kind) {
  return kind == SocketKind::kTcp ? "tcp" : "unix";
}

std::string Header(const Report& report) {
  std::string text = absl::StrFormat(
      "%s: %d layers, experts %s, dense %s, lm_head %s\n"
      "a token needs %.1f M weights, %.1f MB\n"
      "%s, kernels %s, %d threads, prompts in chunks of %d, KV cache %s\n",
      report.model_dir, report.layers, report.expert_format,
      report.dense_format, report.lm_head_format,
      static_cast<double>(report.active_weights) * 1e-6,
      report.active_bytes * 1e-6, report.cpu, report.isa, report.threads,
      report.prefill_chunk, report.kv_cache_dtype);
  if (report.expert_workers > 0) {
    absl::StrAppendFormat(&text,
                          "experts in %d processes of %d threads, over %s\n",
                          report.expert_workers, report.worker_threads,
                          TransportName(report.transport));
  }
  absl::StrAppendFormat(
      &text,
      "limits of %d threads (before and after): read %.1f and %.1f GB/s, int8 "
      "%.0f and %.0f Gop/s, f32 %.0f and %.0f Gop/s\n",
      report.limit_threads, report.before.read.median * 1e-9,
      report.after.read.median * 1e-9, report.before.int8.median * 1e-9,
      report.after.int8.median * 1e-9, report.before.fma.median * 1e-9,
      report.after.fma.median * 1e-9);
  return text;
}

std::string RateTable(const Report& report) {
  std::string text =
      absl::StrFormat("%-18s %9s %19s %9s %7s %15s %8s %15s %8s %8s\n", "",
                      "tokens/s", "(min - max)", "ms/step", "GB/s", "of limit",
                      "int Gop/s", "of limit", "roofline", "experts");
  for (const Measurement& m : report.measurements) {
    const Rates rates = RatesOf(m);
    absl::StrAppendFormat(
        &text,
        "%-18s %9.2f (%8.2f -%8.2f) %8.2f %7.1f %4.0f%% of %6.1f %8.1f %4.0f%% "
        "of %6.0f %7.0f%% %8.1f\n",
        Describe(m), m.TokensPerSecond(m.Median()), m.MinTokensPerSecond(),
        m.MaxTokensPerSecond(), rates.seconds_per_step * 1e3,
        rates.bytes * 1e-9, 100 * rates.read_share,
        m.Median().limits.read_bytes * 1e-9, rates.integer_operations * 1e-9,
        100 * rates.int8_share, m.Median().limits.integer_operations * 1e-9,
        100 * rates.roofline_share, m.distinct_experts);
  }
  return text;
}

// Each part's time in ms of a step, and its share of the step's time.
std::string PartTable(const Report& report) {
  std::string text = absl::StrFormat("%-18s", "ms/step (% of it)");
  for (int part = 0; part < kNumStepParts; ++part) {
    absl::StrAppendFormat(&text, " %14s",
                          StepPartName(static_cast<StepPart>(part)));
  }
  text += "\n";
  for (const Measurement& m : report.measurements) {
    const Repetition& median = m.Median();
    absl::StrAppendFormat(&text, "%-18s", Describe(m));
    for (int part = 0; part < kNumStepParts; ++part) {
      absl::StrAppendFormat(
          &text, " %9.3f %3.0f%%",
          1e3 * Ratio(median.parts[part], static_cast<double>(m.steps)),
          100 * Ratio(median.parts[part], median.seconds));
    }
    text += "\n";
  }
  return text;
}

// Each part's roofline over its time: where the distance to the limit is.
std::string PartShareTable(const Report& report) {
  std::string text = absl::StrFormat("%-18s", "share of roofline");
  for (int part = 0; part < kNumStepParts; ++part) {
    absl::StrAppendFormat(&text, " %14s",
                          StepPartName(static_cast<StepPart>(part)));
  }
  text += "\n";
  for (const Measurement& m : report.measurements) {
    absl::StrAppendFormat(&text, "%-18s", Describe(m));
    for (int part = 0; part < kNumStepParts; ++part) {
      StepCost alone = {};
      alone[part] = m.cost[part];
      absl::StrAppendFormat(
          &text, " %13.0f%%",
          100 * Ratio(RooflineSeconds(alone, m.Median().limits),
                      m.Median().parts[part]));
    }
    text += "\n";
  }
  return text;
}

double DispatchSecondsPerLayer(const Measurement& m) {
  return Ratio(m.Median().parts[static_cast<int>(StepPart::kDispatch)],
               static_cast<double>(m.dispatches));
}

std::string DispatchText(const Report& report) {
  std::string text;
  for (const Measurement& m : report.measurements) {
    absl::StrAppendFormat(&text, "%-18s %8.1f us of dispatch a layer\n",
                          Describe(m), 1e6 * DispatchSecondsPerLayer(m));
  }
  for (const SocketResult& socket : report.sockets) {
    absl::StrAppendFormat(
        &text, "raw %s sockets, one token's bytes, %s: %.1f us (p99 %.1f)\n",
        TransportName(report.transport), socket.spin ? "spinning" : "blocking",
        1e6 * socket.round_trip.median, 1e6 * socket.round_trip.p99);
  }
  return text;
}

// The measurement after which this process held most beyond what it must.
const Measurement* Fattest(const Report& report) {
  const Measurement* worst = nullptr;
  for (const Measurement& m : report.measurements) {
    if (worst == nullptr || m.resident_bytes - m.state_bytes >
                                worst->resident_bytes - worst->state_bytes) {
      worst = &m;
    }
  }
  return worst;
}

std::string MemoryText(const Report& report) {
  const Measurement* const worst = Fattest(report);
  if (worst == nullptr) return "";
  constexpr double kMib = 1 << 20;
  const auto mib = [](int64_t bytes) {
    return static_cast<double>(bytes) / kMib;
  };
  std::string text = absl::StrFormat(
      "memory: %.0f MiB in RAM = weights %.0f + states %.0f + %.0f MiB more\n",
      mib(worst->resident_bytes), mib(report.weight_bytes),
      mib(worst->state_bytes),
      mib(worst->resident_bytes - report.weight_bytes - worst->state_bytes));
  if (report.expert_workers > 0) {
    absl::StrAppendFormat(&text, "expert workers: %.0f MiB in RAM\n",
                          mib(report.worker_resident_bytes));
  }
  return text;
}

Json RateJson(const Rate& before, const Rate& after) {
  return {{"before", {{"median", before.median}, {"best", before.best}}},
          {"after", {{"median", after.median}, {"best", after.best}}}};
}

Json CostJson(const Cost& cost, double steps) {
  return {{"weight_bytes", Ratio(cost.weight_bytes, steps)},
          {"state_bytes", Ratio(cost.state_bytes, steps)},
          {"integer_operations", Ratio(cost.integer_operations, steps)},
          {"float_operations", Ratio(cost.float_operations, steps)},
          {"bf16_operations", Ratio(cost.bf16_operations, steps)}};
}

Json MeasurementJson(const Measurement& m) {
  const Rates rates = RatesOf(m);
  const Repetition& median = m.Median();
  const auto steps = static_cast<double>(m.steps);
  Json json = {
      {"phase", m.phase == Phase::kPrefill ? "prefill" : "decode"},
      {"batch", m.batch},
      {"context", m.context},
      {"tokens", m.tokens},
      {"steps", m.steps},
      {"repetitions", m.repetitions.size()},
      {"tokens_per_second",
       {{"median", m.TokensPerSecond(median)},
        {"min", m.MinTokensPerSecond()},
        {"max", m.MaxTokensPerSecond()}}},
      {"seconds_per_step", rates.seconds_per_step},
      {"bytes_per_second", rates.bytes},
      {"integer_operations_per_second", rates.integer_operations},
      {"float_operations_per_second", rates.float_operations},
      {"bf16_operations_per_second", rates.bf16_operations},
      {"share_of_read_limit", rates.read_share},
      {"share_of_int8_limit", rates.int8_share},
      {"share_of_roofline", rates.roofline_share},
      {"distinct_experts_per_layer", m.distinct_experts},
      {"dispatch_seconds_per_layer", DispatchSecondsPerLayer(m)},
      {"state_bytes", m.state_bytes},
      {"resident_bytes", m.resident_bytes},
      {"cost_per_step", CostJson(Total(m.cost), steps)},
      {"limits",
       {{"read_bytes_per_second", median.limits.read_bytes},
        {"int8_operations_per_second", median.limits.integer_operations},
        {"f32_operations_per_second", median.limits.float_operations},
        {"bf16_operations_per_second", median.limits.bf16_operations}}}};
  Json& parts = json["parts"] = Json::object();
  for (int part = 0; part < kNumStepParts; ++part) {
    Json one = {{"seconds_per_step", Ratio(median.parts[part], steps)},
                {"share_of_time", Ratio(median.parts[part], median.seconds)}};
    one.update(CostJson(m.cost[part], steps));
    parts[StepPartName(static_cast<StepPart>(part))] = std::move(one);
  }
  return json;
}

}  // namespace

std::string ReportText(const Report& report) {
  std::string text = Header(report);
  if (report.measurements.empty()) return text;
  absl::StrAppend(&text, "\n", RateTable(report), "\n", PartTable(report), "\n",
                  PartShareTable(report), "\n");
  if (report.expert_workers > 0) {
    absl::StrAppend(&text, DispatchText(report), "\n");
  }
  absl::StrAppend(&text, MemoryText(report));
  return text;
}

std::string ReportJson(const Report& report) {
  Json json = {{"schema", kSchemaVersion},
               {"version", std::string(kVersion)},
               {"model",
                {{"directory", report.model_dir},
                 {"fingerprint", report.fingerprint},
                 {"layers", report.layers},
                 {"expert_format", report.expert_format},
                 {"dense_format", report.dense_format},
                 {"lm_head_format", report.lm_head_format},
                 {"active_weights", report.active_weights},
                 {"active_bytes", report.active_bytes}}},
               {"setting",
                {{"cpu", report.cpu},
                 {"isa", report.isa},
                 {"threads", report.threads},
                 {"prefill_chunk", report.prefill_chunk},
                 {"kv_cache_dtype", report.kv_cache_dtype},
                 {"expert_workers", report.expert_workers},
                 {"transport", report.expert_workers > 0
                                   ? TransportName(report.transport)
                                   : "in process"},
                 {"worker_threads", report.worker_threads}}},
               {"limits",
                {{"threads", report.limit_threads},
                 {"read_bytes_per_second",
                  RateJson(report.before.read, report.after.read)},
                 {"int8_operations_per_second",
                  RateJson(report.before.int8, report.after.int8)},
                 {"f32_operations_per_second",
                  RateJson(report.before.fma, report.after.fma)}}},
               {"memory",
                {{"weight_bytes", report.weight_bytes},
                 {"worker_resident_bytes", report.worker_resident_bytes}}}};
  Json& measurements = json["measurements"] = Json::array();
  for (const Measurement& m : report.measurements) {
    measurements.push_back(MeasurementJson(m));
  }
  Json& sockets = json["raw_sockets"] = Json::array();
  for (const SocketResult& socket : report.sockets) {
    sockets.push_back({{"spin", socket.spin},
                       {"median_seconds", socket.round_trip.median},
                       {"p99_seconds", socket.round_trip.p99}});
  }
  // A path that is no UTF-8 must not throw.
  return json.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace switchyard::bench
