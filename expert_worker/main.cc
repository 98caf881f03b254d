// switchyard-expert-worker: holds some of a model's experts, and computes them
// for attention workers.
//
//   switchyard-expert-worker --model=/models/qwen3-next --slice=1/4 --port=7001
//
// Listens at once, then loads the experts of part 1 of 4 of every layer; until
// that is done streams are refused with UNAVAILABLE, gRPC health says
// NOT_SERVING and /readyz of --metrics_port 503 with the progress. Every flag
// can also be set by an environment variable: SWITCHYARD_ and its name in upper
// case.
//
// With --routers it joins them, and they say who else is there. With
// --placement=auto it then needs no --slice: it holds its share of the experts
// there are, loads more when other workers go, and lets go of what those that
// come hold too, while it serves.
//
//   switchyard-expert-worker --model=/models/qwen3-next --placement=auto
//       --routers=router:8090 --memory-gib=24
//
// SIGTERM, SIGINT: health turns NOT_SERVING, attention workers are told to go
// elsewhere, what is in flight is answered (at most --drain_timeout), exit code
// 0. Exit code 1: bad flags, a bad checkpoint, or a port in use; the reason is
// on stderr.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/command_line.h"
#include "base/cpu_set.h"
#include "base/log.h"
#include "base/log_flags.h"
#include "base/out_of_memory.h"
#include "base/serve_until_signal.h"
#include "base/shutdown_signal.h"
#include "base/status_macros.h"
#include "expert_worker/server.h"
#include "fabric/client/membership_client.h"
#include "kernels/amx_kernels.h"
#include "kernels/kernel_table.h"
#include "model/weight_copies.h"
#include "rpc/channel.h"
#include "rpc/tls_flags.h"

ABSL_FLAG(std::string, model, "",
          "folder with config.json and *.safetensors; required");
ABSL_FLAG(std::string, slice, "",
          "hold part i of n of every layer's experts: \"i/n\"; default: all");
ABSL_FLAG(std::string, experts, "",
          "hold these experts of every layer, \"0-15,40\"; instead of --slice");
ABSL_FLAG(std::string, placement, "static",
          "static: what --slice or --experts say; auto: a share of what the "
          "workers that --routers know hold together");
ABSL_FLAG(
    std::string, routers, "",
    "routers to join at their --grpc-port, \"host:port,host:port\"; a name "
    "stands for all of its addresses");
ABSL_FLAG(std::string, advertise_address, "",
          "host:port at which others reach this worker; default: --host and "
          "--port, or the address that the routers see");
ABSL_FLAG(
    std::string, node, "",
    "what fails together: copies of an expert are on different nodes, and "
    "zones, where that can be; default: the machine's name");
ABSL_FLAG(std::string, zone, "", "as --node, for more than a machine");
ABSL_FLAG(double, memory_gib, 0,
          "with --placement=auto: GiB for experts; 0: 80% of the memory");
ABSL_FLAG(int64_t, experts_budget, 0,
          "with --placement=auto: (layer, expert) pairs to hold at most, "
          "instead of --memory-gib");
ABSL_FLAG(int, replicas, 2,
          "with --placement=auto: workers that hold each expert; the same on "
          "all");
ABSL_FLAG(absl::Duration, rebalance_delay, absl::Seconds(1),
          "with --placement=auto: how long a worker that vanished without a "
          "word keeps its share");
ABSL_FLAG(absl::Duration, join_delay, absl::Milliseconds(300),
          "with --placement=auto: workers that come within so long of one "
          "another get their shares together");
ABSL_FLAG(double, hot_copy_gib_per_minute, 4,
          "with --placement=auto: GiB a minute that may be loaded for further "
          "copies of experts that get many rows; 0: no further copies");
ABSL_FLAG(int, load_threads, 0,
          "with --placement=auto: threads that load; 0: half of --threads");
ABSL_FLAG(std::string, host, "0.0.0.0",
          "address to listen on, or unix:/path for a socket of this machine "
          "(then --port means nothing)");
ABSL_FLAG(int, port, 7001, "gRPC port; 0 picks a free one");
ABSL_FLAG(int, metrics_port, 9001,
          "HTTP port of /metrics, /livez and /readyz; 0 picks a free one, -1 "
          "turns it off");
ABSL_FLAG(int, threads, 0, "threads that compute; 0: all CPUs it may use");
ABSL_FLAG(int, spin_micros, 0,
          "how long to look for the next request before sleeping; saves the "
          "wake-up, costs a CPU meanwhile: only where this process has its "
          "CPUs to itself");
ABSL_FLAG(std::string, cpus, "",
          "one thread on each of these CPUs alone, \"0-7,16\"; give the "
          "processes of one machine lists that do not meet; default: the "
          "kernel decides");
ABSL_FLAG(std::string, weights, "auto",
          "copy: weights in this process's memory, in large pages, fastest; "
          "map: in the mapped files, which the processes of one machine share; "
          "auto: copy those of a converted checkpoint");
ABSL_FLAG(std::string, activations, "auto",
          "bfloat16: BF16 matrices of a Hugging Face directory are multiplied "
          "by activations in bf16; as the attention workers' flag");
ABSL_FLAG(std::string, isa, "auto",
          "instruction set: auto, scalar, avx2, avx512, avx512vnni, avx512bf16 "
          "or amx (never by auto); all give the same bits");
ABSL_FLAG(bool, verify_checksums, false,
          "read all files that SHA256SUMS lists and compare, before loading");
ABSL_FLAG(
    int64_t, max_queue_mib, 512,
    "MiB of activations and outputs that may wait or be computed; beyond, "
    "requests are refused with RESOURCE_EXHAUSTED");
ABSL_FLAG(int64_t, max_rows_in_flight, 16'384,
          "rows that one attention worker may have in flight here");
ABSL_FLAG(uint32_t, max_protocol_version, 0,
          "newest version of proto/expert.proto to speak; 0: the newest there "
          "is. For a pool that an older build may have to take over");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(10),
          "how long what is in flight may take to finish at the end");

namespace switchyard::expert_worker {
namespace {

// The only function that reads flags: everything below it takes Options.
absl::StatusOr<ServerOptions> OptionsFromFlags() {
  ServerOptions options;
  options.model_dir = absl::GetFlag(FLAGS_model);
  SY_ASSIGN_OR_RETURN(
      options.activations,
      model::ParseActivations(absl::GetFlag(FLAGS_activations)));
  options.slice = absl::GetFlag(FLAGS_slice);
  options.experts = absl::GetFlag(FLAGS_experts);
  const std::string placement = absl::GetFlag(FLAGS_placement);
  if (placement != "static" && placement != "auto") {
    return absl::InvalidArgumentError(absl::StrCat(
        "--placement is '", placement, "'; it must be static or auto"));
  }
  options.placed = placement == "auto";
  SY_ASSIGN_OR_RETURN(options.routers,
                      fabric::ParseRouters(absl::GetFlag(FLAGS_routers)));
  options.advertise_address = absl::GetFlag(FLAGS_advertise_address);
  options.node = absl::GetFlag(FLAGS_node);
  options.zone = absl::GetFlag(FLAGS_zone);
  const double gib = absl::GetFlag(FLAGS_memory_gib);
  if (!(gib >= 0 && gib <= 1 << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--memory-gib=", gib, " is not in [0, ", 1 << 20, "]"));
  }
  options.memory_bytes = static_cast<int64_t>(gib * (1 << 30));
  options.max_experts = absl::GetFlag(FLAGS_experts_budget);
  options.replicas = absl::GetFlag(FLAGS_replicas);
  const double hot = absl::GetFlag(FLAGS_hot_copy_gib_per_minute);
  if (!(hot >= 0 && hot <= 1 << 20)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--hot-copy-gib-per-minute=", hot, " is not in [0, ", 1 << 20, "]"));
  }
  options.hot_copy_bytes_per_minute =
      static_cast<int64_t>(hot * double{1 << 30});
  options.rebalance_delay = absl::GetFlag(FLAGS_rebalance_delay);
  options.join_delay = absl::GetFlag(FLAGS_join_delay);
  options.load_threads = absl::GetFlag(FLAGS_load_threads);
  options.host = absl::GetFlag(FLAGS_host);
  options.port = absl::GetFlag(FLAGS_port);
  options.metrics_port = absl::GetFlag(FLAGS_metrics_port);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.spin = absl::Microseconds(absl::GetFlag(FLAGS_spin_micros));
  SY_ASSIGN_OR_RETURN(options.cpus, ParseCpuList(absl::GetFlag(FLAGS_cpus)));
  SY_ASSIGN_OR_RETURN(options.weights, model::ParseWeightPlacement(
                                           absl::GetFlag(FLAGS_weights)));
  options.verify_checksums = absl::GetFlag(FLAGS_verify_checksums);
  // Beyond a TiB means no limit, and must not overflow.
  options.max_queue_bytes =
      std::min<int64_t>(absl::GetFlag(FLAGS_max_queue_mib), 1 << 20) << 20;
  options.max_rows_in_flight = absl::GetFlag(FLAGS_max_rows_in_flight);
  options.max_protocol_version = absl::GetFlag(FLAGS_max_protocol_version);
  options.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
  options.on_load_failed = RequestShutdown;
  return options;
}

absl::Status Run(int argc, char** argv) {
  SY_ASSIGN_OR_RETURN(
      const std::vector<std::string> arguments,
      ParseCommandLine(argc, argv,
                       "switchyard-expert-worker --model DIR [--slice I/N]\n"
                       "Holds some experts of a Qwen3-Next model, and computes "
                       "them for attention workers."));
  if (!arguments.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("unexpected argument \"", arguments.front(),
                     "\"; all options are flags, see --help"));
  }
  if (absl::GetFlag(FLAGS_model).empty()) {
    return absl::InvalidArgumentError("--model is required; see --help");
  }
  SY_RETURN_IF_ERROR(SetLogOfFlags());
  SY_RETURN_IF_ERROR(rpc::UseTlsOfFlags());
  SY_RETURN_IF_ERROR(kernels::SelectKernels(absl::GetFlag(FLAGS_isa)));
  LogInfo(absl::StrCat("kernels: ", kernels::DescribeKernels()));
  SY_ASSIGN_OR_RETURN(ServerOptions options, OptionsFromFlags());
  SY_ASSIGN_OR_RETURN(std::unique_ptr<Server> server,
                      Server::Start(std::move(options)));
  return ServeUntilSignal(
      {.load_status =
           [&] { return server->WaitUntilLoaded(absl::InfinitePast()); },
       .drain = [&] { server->Shutdown(); }});
}

}  // namespace
}  // namespace switchyard::expert_worker

int main(int argc, char** argv) {
  switchyard::ExitWhenOutOfMemory();
  switchyard::BlockShutdownSignals();
  switchyard::rpc::PollEachQueueAlone();
  const absl::Status status = switchyard::expert_worker::Run(argc, argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "switchyard-expert-worker: %s\n",
               status.ToString().c_str());
  return 1;
}
