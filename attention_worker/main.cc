// switchyard-attention-worker: one replica of a model: attention, state,
// sampling.
//
//   switchyard-attention-worker --model=/models/qwen3-next --port=7000
//       --expert-workers=10.0.0.1:7001,10.0.0.2:7001
//
// Listens at once, then loads every weight but those of the routed experts;
// until that is done requests are refused with UNAVAILABLE, gRPC health says
// NOT_SERVING and /readyz of --metrics-port 503 with the progress. After that
// it is READY while every expert is held by an expert worker that it reaches,
// and WAITING_EXPERTS otherwise: requests are taken, and wait for the missing
// experts. With --routers it joins them, gets requests from them, and uses
// whatever expert workers have joined them, unless --expert-workers says which.
// With neither it computes the experts itself. Every flag
// can also be set by an environment variable: SWITCHYARD_ and its name in upper
// case.
//
// SIGTERM, SIGINT: health turns NOT_SERVING, new requests are refused, those
// that run may finish for --drain-timeout, exit code 0; a second signal ends
// the process at once. Exit code 1: bad flags, a bad checkpoint, too little
// memory, or a port in use; the reason is on stderr.

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "attention_worker/server.h"
#include "base/command_line.h"
#include "base/cpu_set.h"
#include "base/log.h"
#include "base/log_flags.h"
#include "base/out_of_memory.h"
#include "base/serve_until_signal.h"
#include "base/shutdown_signal.h"
#include "base/status_macros.h"
#include "fabric/client/membership_client.h"
#include "kernels/amx_kernels.h"
#include "kernels/kernel_table.h"
#include "model/weight_copies.h"
#include "rpc/channel.h"
#include "rpc/tls_flags.h"

ABSL_FLAG(std::string, model, "",
          "folder with config.json and *.safetensors; required");
ABSL_FLAG(std::string, served_model_name, "",
          "the metrics' label model_name; default: the folder's name");
ABSL_FLAG(std::string, host, "0.0.0.0",
          "address to listen on, or unix:/path for a socket of this machine "
          "(then --port means nothing)");
ABSL_FLAG(int, port, 7000, "gRPC port; 0 picks a free one");
ABSL_FLAG(int, metrics_port, 9000,
          "HTTP port of /metrics, /livez and /readyz; 0 picks a free one, -1 "
          "turns it off");
ABSL_FLAG(
    std::string, expert_workers, "",
    "addresses of the expert workers, host:port or unix:/path, with commas "
    "between; rows go to whoever would be through first; empty: those that "
    "--routers know, or, without --routers, compute the experts here; local: "
    "compute them here");
ABSL_FLAG(
    std::string, routers, "",
    "routers to join at their --grpc-port, \"host:port,host:port\"; a name "
    "stands for all of its addresses");
ABSL_FLAG(std::string, advertise_address, "",
          "host:port at which routers reach this worker; default: --host and "
          "--port, or the address that they see");
ABSL_FLAG(int, spin_micros, -1,
          "how long to look for expert workers' replies before sleeping; saves "
          "the wake-up, costs a CPU meanwhile; -1: 0 if one of them is on this "
          "machine, else 200");
ABSL_FLAG(int, threads, 0, "threads that compute; 0: all CPUs it may use");
ABSL_FLAG(std::string, cpus, "",
          "one thread on each of these CPUs alone, \"0-7,16\"; give the "
          "processes of one machine lists that do not meet; default: the "
          "kernel decides");
ABSL_FLAG(std::string, weights, "auto",
          "copy: weights in this process's memory, in large pages, fastest; "
          "map: in the mapped files, which the processes of one machine share; "
          "auto: copy those of a converted checkpoint");
ABSL_FLAG(std::string, kv_cache_dtype, "auto",
          "keys and values of past tokens: float32 (the reference's tokens), "
          "bfloat16 (half the memory) or int8 (less than a third; all workers "
          "of a model must have the same, it changes tokens); auto: bfloat16 "
          "for a converted checkpoint, else float32");
ABSL_FLAG(std::string, activations, "auto",
          "bfloat16: BF16 matrices of a Hugging Face directory are multiplied "
          "by activations in bf16, faster with AVX-512 BF16, other tokens (all "
          "processes of a model must have the same); auto: by such in f32");
ABSL_FLAG(std::string, isa, "auto",
          "instruction set: auto, scalar, avx2, avx512, avx512vnni, avx512bf16 "
          "or amx (never by auto); all give the same bits");
ABSL_FLAG(
    int64_t, context_length, 0,
    "tokens of a sequence, prompt and output together; 0: the model's, or "
    "what --state-memory holds");
ABSL_FLAG(int64_t, max_running_requests, 64, "sequences in one step");
ABSL_FLAG(int64_t, max_queued_requests, 1024,
          "requests that wait for memory; beyond: RESOURCE_EXHAUSTED");
ABSL_FLAG(int64_t, chunked_prefill_size, 1024,
          "prompt tokens in one step, of all sequences together");
ABSL_FLAG(bool, disable_radix_cache, false,
          "forget a sequence's state when it ends, instead of keeping it for "
          "prompts that begin alike; changes no token");
ABSL_FLAG(std::string, snapshot_dir, "",
          "a directory, of this process alone, that keeps prefixes' states "
          "beyond its memory and its life; empty: none");
ABSL_FLAG(int64_t, snapshot_dir_bytes, int64_t{64} << 30,
          "bytes that --snapshot-dir may take");
ABSL_FLAG(std::string, speculative_algorithm, "auto",
          "drafts of tokens, verified together; they change no token: NEXTN "
          "(by the model's MTP head), NONE, or auto: NEXTN if it has one");
ABSL_FLAG(int, speculative_num_steps, 3,
          "tokens that are drafted at a time, at most; 0: none");
ABSL_FLAG(int, speculative_eagle_topk, 1, "guesses for each place; 1");
ABSL_FLAG(int, speculative_num_draft_tokens, 0,
          "speculative_num_steps + 1, or 0");
ABSL_FLAG(bool, speculative_adaptive, true,
          "draft fewer tokens, or none, when it does not pay; false: always "
          "speculative_num_steps");
ABSL_FLAG(
    int64_t, state_memory, 0,
    "bytes for all sequences' states; 0: half of what the weights leave of "
    "the machine's or cgroup's memory");
ABSL_FLAG(absl::Duration, expert_wait_timeout, absl::Seconds(30),
          "how long a step waits for an expert that nobody holds");
ABSL_FLAG(
    std::string, expert_fallback, "wait",
    "what becomes of an expert that no expert worker holds: wait for one, "
    "or local: compute it here, from --model's files, which are read when "
    "that happens");
ABSL_FLAG(double, verify_fraction, 0,
          "share of the experts' rows that two expert workers compute, to be "
          "compared bit for bit; whoever computes wrongly gets no more rows");
ABSL_FLAG(double, hedge_share, 0.05,
          "calls of expert workers that may be made a second time, at another "
          "holder, because the first one takes long: this share of all; 0: "
          "none");
ABSL_FLAG(int, join_probes, 2,
          "rows with known answers that an expert worker must get right before "
          "it gets others; 0: none");
ABSL_FLAG(absl::Duration, request_timeout, absl::InfiniteDuration(),
          "longest time of a request, whatever its own deadline");
ABSL_FLAG(
    std::string, otlp_traces_endpoint, "",
    "host:port of an OpenTelemetry collector (OTLP over gRPC): gets spans "
    "of requests whose router traces them; default: no traces");
ABSL_FLAG(bool, verify_checksums, false,
          "read all files that SHA256SUMS lists and compare, before loading");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(30),
          "how long requests may go on after SIGTERM");

namespace switchyard::attention_worker {
namespace {

// The only function that reads flags: everything below it takes Options.
absl::StatusOr<ServerOptions> OptionsFromFlags() {
  ServerOptions options;
  options.worker.model_dir = absl::GetFlag(FLAGS_model);
  options.worker.model_name = absl::GetFlag(FLAGS_served_model_name);
  options.host = absl::GetFlag(FLAGS_host);
  options.port = absl::GetFlag(FLAGS_port);
  options.metrics_port = absl::GetFlag(FLAGS_metrics_port);
  options.expert_workers = absl::GetFlag(FLAGS_expert_workers);
  SY_ASSIGN_OR_RETURN(options.routers,
                      fabric::ParseRouters(absl::GetFlag(FLAGS_routers)));
  options.advertise_address = absl::GetFlag(FLAGS_advertise_address);
  options.spin = absl::Microseconds(absl::GetFlag(FLAGS_spin_micros));
  options.worker.threads = absl::GetFlag(FLAGS_threads);
  SY_ASSIGN_OR_RETURN(options.worker.cpus,
                      ParseCpuList(absl::GetFlag(FLAGS_cpus)));
  SY_ASSIGN_OR_RETURN(
      options.worker.weights,
      model::ParseWeightPlacement(absl::GetFlag(FLAGS_weights)));
  SY_ASSIGN_OR_RETURN(
      options.worker.activations,
      model::ParseActivations(absl::GetFlag(FLAGS_activations)));
  SY_ASSIGN_OR_RETURN(options.worker.kv_cache_dtype,
                      ParseKvCacheDType(absl::GetFlag(FLAGS_kv_cache_dtype)));
  options.worker.max_model_len = absl::GetFlag(FLAGS_context_length);
  options.worker.state_memory_bytes = absl::GetFlag(FLAGS_state_memory);
  options.worker.max_running_requests =
      absl::GetFlag(FLAGS_max_running_requests);
  options.worker.max_queued_requests = absl::GetFlag(FLAGS_max_queued_requests);
  options.worker.chunked_prefill_size =
      absl::GetFlag(FLAGS_chunked_prefill_size);
  options.worker.prefix_caching = !absl::GetFlag(FLAGS_disable_radix_cache);
  options.worker.snapshot_dir = absl::GetFlag(FLAGS_snapshot_dir);
  options.worker.snapshot_dir_bytes = absl::GetFlag(FLAGS_snapshot_dir_bytes);
  options.worker.speculative.algorithm =
      absl::GetFlag(FLAGS_speculative_algorithm);
  options.worker.speculative.num_steps =
      absl::GetFlag(FLAGS_speculative_num_steps);
  options.worker.speculative.eagle_topk =
      absl::GetFlag(FLAGS_speculative_eagle_topk);
  options.worker.speculative.num_draft_tokens =
      absl::GetFlag(FLAGS_speculative_num_draft_tokens);
  options.worker.speculative.adaptive =
      absl::GetFlag(FLAGS_speculative_adaptive);
  options.worker.expert_wait_timeout = absl::GetFlag(FLAGS_expert_wait_timeout);
  options.expert_fallback = absl::GetFlag(FLAGS_expert_fallback);
  options.worker.verify_fraction = absl::GetFlag(FLAGS_verify_fraction);
  options.worker.join_probes = absl::GetFlag(FLAGS_join_probes);
  options.worker.hedge_share = absl::GetFlag(FLAGS_hedge_share);
  options.max_request_time = absl::GetFlag(FLAGS_request_timeout);
  options.otlp_traces_endpoint = absl::GetFlag(FLAGS_otlp_traces_endpoint);
  options.worker.verify_checksums = absl::GetFlag(FLAGS_verify_checksums);
  options.drain_timeout = absl::GetFlag(FLAGS_drain_timeout);
  options.on_load_failed = RequestShutdown;
  return options;
}

absl::Status Run(int argc, char** argv) {
  SY_ASSIGN_OR_RETURN(
      const std::vector<std::string> arguments,
      ParseCommandLine(argc, argv,
                       "switchyard-attention-worker --model DIR "
                       "[--expert-workers HOST:PORT,...]\n"
                       "One replica of a Qwen3-Next model: token ids in, token "
                       "ids out, over gRPC."));
  if (!arguments.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("unexpected argument \"", arguments.front(),
                     "\"; all options are flags, see --help"));
  }
  SY_ASSIGN_OR_RETURN(const ServerOptions options, OptionsFromFlags());
  if (options.worker.model_dir.empty()) {
    return absl::InvalidArgumentError("--model is required; see --help");
  }
  SY_RETURN_IF_ERROR(SetLogOfFlags());
  SY_RETURN_IF_ERROR(rpc::UseTlsOfFlags());
  SY_RETURN_IF_ERROR(kernels::SelectKernels(absl::GetFlag(FLAGS_isa)));
  LogInfo(absl::StrCat("kernels: ", kernels::DescribeKernels()));
  SY_ASSIGN_OR_RETURN(std::unique_ptr<Server> server, Server::Start(options));
  return ServeUntilSignal(
      {.load_status =
           [&] { return server->WaitUntilLoaded(absl::InfinitePast()); },
       .drain = [&] { server->Shutdown(); }});
}

}  // namespace
}  // namespace switchyard::attention_worker

int main(int argc, char** argv) {
  switchyard::ExitWhenOutOfMemory();
  switchyard::BlockShutdownSignals();
  switchyard::rpc::PollEachQueueAlone();
  const absl::Status status = switchyard::attention_worker::Run(argc, argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "switchyard-attention-worker: %s\n",
               status.ToString().c_str());
  return 1;
}
