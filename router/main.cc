// switchyard-router: the front of the cluster. Text in over HTTP (OpenAI's
// chat, completions and responses, Anthropic's messages, SGLang's /generate),
// token ids to attention workers over gRPC, and text back.
//
//   switchyard-router --model=/models/qwen3-next
//       --attention-workers=10.0.0.5:7000,10.0.0.6:7000 --port=30000
//
// Workers of both kinds that are given --routers join at --grpc-port, and leave
// when they are not heard of for --member-lease: attention workers among them
// get requests, too, and --attention-workers may then be empty.
//
// Of the model's folder it reads config.json, generation_config.json, the
// tokenizer and the chat template; no weights. It serves at once: /livez says
// 200, /readyz (and /health) 503 until an attention worker can take requests,
// with how each of them is. /metrics is for Prometheus. Every flag can also be
// set by an environment variable, SWITCHYARD_ and its name in upper case, or in
// the JSON object of --config=FILE.
//
// In the clear and for everybody unless told otherwise: HTTPS is
// --ssl-certfile;
// --api-key and --api-key-file say who may come; --tls-cert-file with
// --tls-ca-file is mutual TLS with the workers.
//
// SIGTERM, SIGINT: /readyz turns 503, new requests are refused with 503,
// answers in progress may end within --drain-timeout, then get an error; exit
// code 0. A second signal ends the process at once. Exit code 1: bad flags or
// files, or a port in use; the reason is on stderr.

#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "base/command_line.h"
#include "base/log.h"
#include "base/log_flags.h"
#include "base/out_of_memory.h"
#include "base/serve_until_signal.h"
#include "base/shutdown_signal.h"
#include "base/status_macros.h"
#include "router/client/grpc_attention_client.h"
#include "router/flags.h"
#include "router/server.h"
#include "rpc/channel.h"
#include "rpc/tls_flags.h"

ABSL_FLAG(
    std::string, model, "",
    "folder with config.json, the tokenizer and the chat template; required");
ABSL_FLAG(std::string, attention_workers, "",
          "attention workers, \"host:port,host:port\"; those that join by "
          "--grpc-port come beside them");
ABSL_FLAG(std::string, host, "127.0.0.1",
          "address to listen on; 0.0.0.0 for all networks");
ABSL_FLAG(int, port, 30000, "HTTP port; 0 picks a free one");
ABSL_FLAG(int, grpc_port, -1,
          "port of gRPC, where workers join (their --routers), and of health "
          "and reflection; 0 picks a free one, -1: none");
ABSL_FLAG(absl::Duration, member_heartbeat, absl::Milliseconds(100),
          "how often workers that joined are to report");
ABSL_FLAG(absl::Duration, member_lease, absl::Milliseconds(500),
          "a worker that was not heard of for so long is gone");
ABSL_FLAG(absl::Duration, failover_timeout, absl::Seconds(30),
          "how long a request that lost its attention worker waits for one");
ABSL_FLAG(absl::Duration, worker_grace, absl::Seconds(5),
          "until how long after an attention worker could take requests a new "
          "one waits for one that can; then 503; 0: 503 at once");

namespace switchyard::router {
namespace {

absl::StatusOr<std::unique_ptr<AttentionClient>> Connect(
    const std::string& address) {
  GrpcAttentionClientOptions options;
  options.address = address;
  return NewGrpcAttentionClient(std::move(options));
}

absl::StatusOr<std::vector<std::shared_ptr<AttentionClient>>> ConnectWorkers() {
  std::vector<std::shared_ptr<AttentionClient>> workers;
  for (absl::string_view address :
       absl::StrSplit(absl::GetFlag(FLAGS_attention_workers), ',',
                      absl::SkipWhitespace())) {
    SY_ASSIGN_OR_RETURN(
        std::unique_ptr<AttentionClient> client,
        Connect(std::string(absl::StripAsciiWhitespace(address))));
    workers.push_back(std::move(client));
  }
  return workers;
}

absl::StatusOr<RouterServer::Options> Options() {
  SY_ASSIGN_OR_RETURN(RouterServer::Options options, OptionsFromFlags());
  options.model_dir = absl::GetFlag(FLAGS_model);
  options.host = absl::GetFlag(FLAGS_host);
  options.port = absl::GetFlag(FLAGS_port);
  options.grpc_port = absl::GetFlag(FLAGS_grpc_port);
  options.member_heartbeat = absl::GetFlag(FLAGS_member_heartbeat);
  options.member_lease = absl::GetFlag(FLAGS_member_lease);
  options.failover_timeout = absl::GetFlag(FLAGS_failover_timeout);
  options.worker_grace = absl::GetFlag(FLAGS_worker_grace);
  options.connect_attention_worker = Connect;
  SY_ASSIGN_OR_RETURN(options.workers, ConnectWorkers());
  return options;
}

absl::Status Run(int argc, char** argv) {
  SY_ASSIGN_OR_RETURN(
      const std::vector<std::string> arguments,
      ParseCommandLine(
          argc, argv,
          "switchyard-router --model DIR {--attention-workers HOST:PORT,... | "
          "--grpc-port PORT}\n"
          "Serves a Qwen3-Next model over OpenAI's, Anthropic's and SGLang's "
          "APIs."));
  if (!arguments.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("unexpected argument \"", arguments.front(),
                     "\"; all options are flags, see --help"));
  }
  SY_RETURN_IF_ERROR(SetLogOfFlags());
  if (absl::GetFlag(FLAGS_model).empty()) {
    return absl::InvalidArgumentError("--model is required; see --help");
  }
  SY_RETURN_IF_ERROR(rpc::UseTlsOfFlags());
  SY_ASSIGN_OR_RETURN(RouterServer::Options options, Options());
  const std::string host = options.host;
  const char* const scheme =
      options.certificate_file.empty() ? "http" : "https";
  SY_ASSIGN_OR_RETURN(std::unique_ptr<RouterServer> server,
                      RouterServer::Start(std::move(options)));
  LogInfo(absl::StrCat("serving ", server->served_model_name(), " on ", scheme,
                       "://", host, ":", server->port()));
  return ServeUntilSignal(
      {.drain = [&] { server->Shutdown(DrainTimeoutFromFlags()); }});
}

}  // namespace
}  // namespace switchyard::router

int main(int argc, char** argv) {
  switchyard::ExitWhenOutOfMemory();
  switchyard::BlockShutdownSignals();
  switchyard::rpc::InitGrpcEnvironment();
  const absl::Status status = switchyard::router::Run(argc, argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "switchyard-router: %s\n", status.ToString().c_str());
  return 1;
}
