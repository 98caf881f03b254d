#include "expert_worker/server_options.h"

#include "absl/strings/str_cat.h"
#include "base/cpu_set.h"
#include "base/status_macros.h"
#include "rpc/queue_poll.h"

namespace switchyard::expert_worker {
namespace {

absl::Status CheckPlacement(const ServerOptions& options) {
  if (!options.placed) return absl::OkStatus();
  if (options.routers.empty()) {
    return absl::InvalidArgumentError(
        "a worker that is placed must know who else is there: give --routers");
  }
  if (!options.slice.empty() || !options.experts.empty()) {
    return absl::InvalidArgumentError(
        "a worker that is placed is given neither a slice nor experts");
  }
  if (options.memory_bytes < 0 || options.max_experts < 0 ||
      options.replicas < 1 || options.replicas > 16 ||
      options.load_threads < 0 || options.load_threads > 256 ||
      options.rebalance_delay < absl::ZeroDuration() ||
      options.join_delay < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "memory ", options.memory_bytes, ", experts ", options.max_experts,
        ", load threads ", options.load_threads,
        " and the delays must not be negative, replicas 1 to 16, not ",
        options.replicas));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckOptions(const ServerOptions& options) {
  if (options.model_dir.empty()) {
    return absl::InvalidArgumentError("no model directory is given");
  }
  if (!options.slice.empty() && !options.experts.empty()) {
    return absl::InvalidArgumentError(
        "a slice and a list of experts are both given; choose one");
  }
  if (options.port < 0 || options.port > 65535 ||
      options.metrics_port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("ports are 0 to 65535, not ",
                                                   options.port, " and ",
                                                   options.metrics_port));
  }
  SY_RETURN_IF_ERROR(CheckThreads(options.threads, options.cpus));
  SY_RETURN_IF_ERROR(CheckPlacement(options));
  if (options.threads < 0 || options.threads > 4096) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threads are 0 (all CPUs) to 4096, not ", options.threads));
  }
  if (options.max_queue_bytes < 1 || options.max_rows_in_flight < 1 ||
      options.max_rows_in_flight > kMaxRowsInFlight) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the queue has at least 1 byte and 1 to ", kMaxRowsInFlight,
        " rows in flight, not ", options.max_queue_bytes, " and ",
        options.max_rows_in_flight));
  }
  if (const fabric::ProtocolRange versions = VersionsOf(options);
      versions.newest < versions.oldest ||
      versions.newest > fabric::kExpertProtocol.newest) {
    return absl::InvalidArgumentError(
        absl::StrCat("this build speaks protocol versions ",
                     fabric::FormatRange(fabric::kExpertProtocol), ", not ",
                     options.max_protocol_version));
  }
  if (options.spin < absl::ZeroDuration() || options.spin > rpc::kMaxSpin) {
    return absl::InvalidArgumentError(absl::StrCat(
        "spinning is for 0 to ", absl::FormatDuration(rpc::kMaxSpin), ", not ",
        absl::FormatDuration(options.spin)));
  }
  return absl::OkStatus();
}

fabric::ProtocolRange VersionsOf(const ServerOptions& options) {
  fabric::ProtocolRange versions = fabric::kExpertProtocol;
  if (options.max_protocol_version != 0) {
    versions.newest = options.max_protocol_version;
  }
  return versions;
}

}  // namespace switchyard::expert_worker
