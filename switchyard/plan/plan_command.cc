#include "switchyard/plan/plan_command.h"

#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "attention_worker/state/kv_dtype.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "model/checkpoint_base.h"
#include "model/config.h"
#include "model/weight_formats.h"
#include "switchyard/bench/result_file.h"
#include "switchyard/output_error.h"
#include "switchyard/plan/plan_report.h"
#include "switchyard/plan/planner.h"
#include "switchyard/synth/synth_config.h"

namespace switchyard {
namespace {

using plan::CostModel;

// PlanOptions::core_gops is by default the best 8-bit products of a Zen 4 core
// with AVX-512 VNNI, which docs/benchmarks.md's shares are of; f32
// multiply-adds are a quarter, and products of bf16 a half.
constexpr double kFloatShare = 0.25;
constexpr double kBf16Share = 0.5;

// Between two processes of one machine over TCP (docs/benchmarks.md): a
// dispatch of one token takes 275 us beyond its computing, of 86 KB; those of
// sixteen take 3 ms. So a byte costs 2 ns on the way through both ends' gRPC
// and kernels, whatever the wire, and what does not depend on bytes 105 us.
constexpr double kSoftwareBytesPerSecond = 0.5e9;
constexpr double kLoopbackDispatchSeconds = 105e-6;

struct KnownNetwork {
  const char* name;
  double bytes_per_second;
  // Both ways through two network cards and a switch, beyond loopback.
  double round_trip_seconds;
};

// Nine tenths of the nominal rates: what TCP leaves. Round trips are usual
// ones, not measured here.
constexpr KnownNetwork kNetworks[] = {{"1GbE", 0.9 * 125e6, 100e-6},
                                      {"10GbE", 0.9 * 1250e6, 40e-6},
                                      {"25GbE", 0.9 * 3125e6, 30e-6},
                                      {"100GbE", 0.9 * 12500e6, 20e-6},
                                      // no wire
                                      {"loopback", HUGE_VAL, 0}};

absl::StatusOr<plan::Network> NetworkNamed(const std::string& name) {
  std::string known;
  for (const KnownNetwork& network : kNetworks) {
    if (absl::EqualsIgnoreCase(name, network.name)) {
      return plan::Network{
          .name = network.name,
          .bytes_per_second =
              1 / (1 / network.bytes_per_second + 1 / kSoftwareBytesPerSecond),
          .dispatch_seconds =
              kLoopbackDispatchSeconds + network.round_trip_seconds};
    }
    absl::StrAppend(&known, known.empty() ? "" : ", ", network.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--network=", name, ": known are ", known));
}

absl::StatusOr<model::ModelConfig> ConfigOf(const std::string& name) {
  std::string text;
  if (absl::EqualsIgnoreCase(name, "80b")) {
    SY_ASSIGN_OR_RETURN(text, SynthConfig("", "", 0));
  } else {
    SY_ASSIGN_OR_RETURN(text, ReadFile(absl::StrCat(name, "/config.json"),
                                       model::kMaxConfigBytes));
  }
  return model::ParseModelConfig(text, model::QuantizationConfig::kIgnore);
}

kernels::KvDType KvDTypeOf(attention_worker::KvCacheDType choice) {
  switch (choice) {
    case attention_worker::KvCacheDType::kFloat32:
      return kernels::KvDType::kF32;
    case attention_worker::KvCacheDType::kInt8:
      return kernels::KvDType::kI8;
    case attention_worker::KvCacheDType::kAuto:  // of a converted checkpoint
    case attention_worker::KvCacheDType::kBFloat16:
      break;
  }
  return kernels::KvDType::kBF16;
}

absl::StatusOr<bench::MachineLimits> Limits(const char* cores_flag,
                                            int64_t cores,
                                            const char* memory_flag,
                                            double memory_gbps,
                                            double core_gops) {
  if (cores < 1 || cores > 4096) {
    return absl::InvalidArgumentError(
        absl::StrCat(cores_flag, "=", cores, " is not in [1, 4096]"));
  }
  if (!(memory_gbps >= 0.1 && memory_gbps <= 1e5)) {
    return absl::InvalidArgumentError(absl::StrCat(
        memory_flag, "=", memory_gbps, " is not in [0.1, 100000]"));
  }
  if (!(core_gops >= 1 && core_gops <= 1e5)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--core-gops=", core_gops, " is not in [1, 100000]"));
  }
  const double operations = static_cast<double>(cores) * core_gops * 1e9;
  return bench::MachineLimits{.read_bytes = memory_gbps * 1e9,
                              .integer_operations = operations,
                              .float_operations = operations * kFloatShare,
                              .bf16_operations = operations * kBf16Share};
}

}  // namespace

absl::StatusOr<double> ParseBytes(absl::string_view flag,
                                  absl::string_view text) {
  static constexpr std::pair<const char*, double> kUnits[] = {
      {"KI", 1024.0},
      {"MI", 1024.0 * 1024},
      {"GI", 1024.0 * 1024 * 1024},
      {"TI", 1024.0 * 1024 * 1024 * 1024},
      {"K", 1024.0},
      {"M", 1024.0 * 1024},
      {"G", 1024.0 * 1024 * 1024},
      {"T", 1024.0 * 1024 * 1024 * 1024}};
  std::string number = absl::AsciiStrToUpper(text);
  if (absl::EndsWith(number, "B")) number.pop_back();
  double factor = 1;
  for (const auto& [unit, bytes] : kUnits) {
    if (absl::EndsWith(number, unit)) {
      number.resize(number.size() - std::char_traits<char>::length(unit));
      factor = bytes;
      break;
    }
  }
  double value = 0;
  if (!absl::SimpleAtod(number, &value) || !(value > 0) || value > 1e18) {
    return absl::InvalidArgumentError(absl::StrCat(
        flag, "=", text, " is no amount of memory: 64GiB, 512MiB or bytes"));
  }
  return value * factor;
}

absl::Status RunPlan(const PlanOptions& options, std::ostream& out) {
  SY_ASSIGN_OR_RETURN(const model::ModelConfig config, ConfigOf(options.model));
  SY_ASSIGN_OR_RETURN(const model::WeightFormats formats,
                      model::ParseWeightFormats(options.format));
  SY_ASSIGN_OR_RETURN(
      const attention_worker::KvCacheDType kv_cache,
      attention_worker::ParseKvCacheDType(options.kv_cache_dtype));
  SY_ASSIGN_OR_RETURN(const CostModel model,
                      CostModel::Create(config, formats, KvDTypeOf(kv_cache)));
  plan::Request request;
  SY_ASSIGN_OR_RETURN(request.node.ram_bytes,
                      ParseBytes("--ram-per-node", options.ram_per_node));
  SY_ASSIGN_OR_RETURN(
      request.node.limits,
      Limits("--cores-per-node", options.cores_per_node, "--memory-gbps",
             options.memory_gbps, options.core_gops));
  SY_ASSIGN_OR_RETURN(
      request.server,
      Limits("--server-cores", options.server_cores, "--server-memory-gbps",
             options.server_memory_gbps, options.core_gops));
  SY_ASSIGN_OR_RETURN(request.network, NetworkNamed(options.network));
  request.nodes = static_cast<int>(options.nodes);
  request.copies = static_cast<int>(options.replicas);
  request.users = options.users;
  request.context = options.context;
  request.attention_workers = static_cast<int>(options.attention_workers);
  SY_ASSIGN_OR_RETURN(const plan::Plan plan, plan::MakePlan(model, request));
  if (!options.json_path.empty()) {
    SY_RETURN_IF_ERROR(bench::WriteResultFile(options.json_path,
                                              plan::PlanJson(request, plan)));
  }
  return WriteOutput(out, [&](std::ostream& o) {
    plan::PrintPlan(
        model, request, plan,
        {.cores = options.cores_per_node, .server_cores = options.server_cores},
        o);
  });
}

}  // namespace switchyard
