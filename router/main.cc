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
// There is no TLS and no authentication here: put a proxy in front of anything
// but a trusted network.
//
// SIGTERM, SIGINT: /readyz turns 503, new requests are refused with 503,
// answers in progress may end within --drain-timeout, then get an error; exit
// code 0. A second signal ends the process at once. Exit code 1: bad flags or
// files, or a port in use; the reason is on stderr.

#include <cstdint>
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
#include "router/server.h"
#include "rpc/channel.h"
#include "rpc/tls_flags.h"

ABSL_FLAG(
    std::string, model, "",
    "folder with config.json, the tokenizer and the chat template; required");
ABSL_FLAG(std::string, served_model_name, "",
          "the model's name in answers; default: the folder's name");
ABSL_FLAG(std::string, attention_workers, "",
          "attention workers, \"host:port,host:port\"; those that join by "
          "--grpc-port come beside them");
ABSL_FLAG(
    std::string, chat_format, "",
    "instruct, thinking, coder, hybrid or switchable; default: recognised "
    "by the chat template");
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
ABSL_FLAG(std::vector<std::string>, api_key, {},
          "keys that clients must send (Authorization: Bearer KEY, or "
          "x-api-key), \"KEY,KEY\"; better in SWITCHYARD_API_KEY, since others "
          "see a command line; default: everybody is welcome");
ABSL_FLAG(std::string, admin_api_key, "",
          "key of those who may also flush caches");
ABSL_FLAG(std::string, api_key_file, "",
          "file of clients, a line each: NAME SHA256-OF-KEY [admin] [rpm=N] "
          "[tpm=N]; read again when it changes");
ABSL_FLAG(int64_t, requests_per_minute, 0,
          "of one client (of all together, without keys); beyond: 429; 0: any "
          "number");
ABSL_FLAG(int64_t, tokens_per_minute, 0,
          "the same in tokens of prompts and answers");
ABSL_FLAG(
    std::string, otlp_traces_endpoint, "",
    "host:port of an OpenTelemetry collector (OTLP over gRPC): gets a span "
    "of every request, unless its traceparent says no; default: no traces");
ABSL_FLAG(std::string, ssl_certfile, "",
          "certificate for HTTPS (PEM, with what leads to its CA); read again "
          "when it changes; default: plain HTTP");
ABSL_FLAG(std::string, ssl_keyfile, "", "its private key (PEM)");
ABSL_FLAG(int, http_threads, 2, "threads that serve connections");
ABSL_FLAG(int, tokenizer_worker_num, 2, "threads that render and tokenize");
ABSL_FLAG(int64_t, context_length, 0,
          "prompt and output together, in tokens; 0: the model's");
ABSL_FLAG(int64_t, max_queued_requests, 1024,
          "requests that may be open at once; beyond: 429");
ABSL_FLAG(int64_t, max_queued_tokens, 0,
          "tokens of prompts that may wait for their first token; beyond: 429 "
          "with Retry-After; 0: any number");
ABSL_FLAG(absl::Duration, max_ttft, absl::ZeroDuration(),
          "a prompt whose first token is estimated to take longer gets 429 "
          "with Retry-After at once; 0: it waits");
ABSL_FLAG(int64_t, max_connections, 4096,
          "connections that may be open at once; beyond: 503");
ABSL_FLAG(int64_t, max_body_mib, 16, "MiB of a request's body; beyond: 413");
ABSL_FLAG(int64_t, response_store_mib, 64,
          "MiB of answers that /v1/responses keeps for clients that ask again");
ABSL_FLAG(absl::Duration, request_timeout, absl::Minutes(30),
          "a request's time, unless it asks for less (field \"timeout\")");
ABSL_FLAG(absl::Duration, failover_timeout, absl::Seconds(30),
          "how long a request that lost its attention worker waits for one");
ABSL_FLAG(
    absl::Duration, sse_ping_interval, absl::Seconds(15),
    "comments in a stream that has nothing to say, against idle timeouts");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(30),
          "how long answers in progress may take to end after SIGTERM");
ABSL_FLAG(bool, strict_fields, false,
          "refuse requests with fields that no API knows, instead of ignoring "
          "them");

namespace switchyard::router {
namespace {

constexpr int64_t kMaxBodyMib = 1024;
constexpr int64_t kMaxStoreMib = 1 << 20;

absl::StatusOr<std::unique_ptr<AttentionClient>> Connect(
    const std::string& address) {
  GrpcAttentionClientOptions options;
  options.address = address;
  return NewGrpcAttentionClient(std::move(options));
}

// With OptionsFromFlags the only functions that read flags.
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

absl::StatusOr<RouterServer::Options> OptionsFromFlags() {
  RouterServer::Options options;
  options.model_dir = absl::GetFlag(FLAGS_model);
  options.served_model_name = absl::GetFlag(FLAGS_served_model_name);
  if (const std::string format = absl::GetFlag(FLAGS_chat_format);
      !format.empty()) {
    SY_ASSIGN_OR_RETURN(options.chat_format, ParseChatFormat(format));
  }
  options.host = absl::GetFlag(FLAGS_host);
  options.port = absl::GetFlag(FLAGS_port);
  options.grpc_port = absl::GetFlag(FLAGS_grpc_port);
  options.member_heartbeat = absl::GetFlag(FLAGS_member_heartbeat);
  options.member_lease = absl::GetFlag(FLAGS_member_lease);
  options.connect_attention_worker = Connect;
  options.api_keys = absl::GetFlag(FLAGS_api_key);
  options.admin_api_key = absl::GetFlag(FLAGS_admin_api_key);
  options.api_key_file = absl::GetFlag(FLAGS_api_key_file);
  options.requests_per_minute = absl::GetFlag(FLAGS_requests_per_minute);
  options.tokens_per_minute = absl::GetFlag(FLAGS_tokens_per_minute);
  options.otlp_traces_endpoint = absl::GetFlag(FLAGS_otlp_traces_endpoint);
  options.certificate_file = absl::GetFlag(FLAGS_ssl_certfile);
  options.private_key_file = absl::GetFlag(FLAGS_ssl_keyfile);
  options.http_threads = absl::GetFlag(FLAGS_http_threads);
  options.text_threads = absl::GetFlag(FLAGS_tokenizer_worker_num);
  options.context_length = absl::GetFlag(FLAGS_context_length);
  options.max_open_requests = absl::GetFlag(FLAGS_max_queued_requests);
  options.max_waiting_tokens = absl::GetFlag(FLAGS_max_queued_tokens);
  options.max_ttft = absl::GetFlag(FLAGS_max_ttft);
  options.max_connections = absl::GetFlag(FLAGS_max_connections);
  const int64_t mib = absl::GetFlag(FLAGS_max_body_mib);
  if (mib < 1 || mib > kMaxBodyMib) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--max-body-mib=", mib, " is not in [1, ", kMaxBodyMib, "]"));
  }
  options.max_body_bytes = mib << 20;
  const int64_t store_mib = absl::GetFlag(FLAGS_response_store_mib);
  if (store_mib < 0 || store_mib > kMaxStoreMib) {
    return absl::InvalidArgumentError(
        absl::StrCat("--response-store-mib=", store_mib, " is not in [0, ",
                     kMaxStoreMib, "]"));
  }
  options.max_stored_response_bytes = store_mib << 20;
  options.request_timeout = absl::GetFlag(FLAGS_request_timeout);
  options.failover_timeout = absl::GetFlag(FLAGS_failover_timeout);
  options.keep_alive_interval = absl::GetFlag(FLAGS_sse_ping_interval);
  options.strict_fields = absl::GetFlag(FLAGS_strict_fields);
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
  SY_ASSIGN_OR_RETURN(RouterServer::Options options, OptionsFromFlags());
  SY_ASSIGN_OR_RETURN(options.workers, ConnectWorkers());
  const std::string host = options.host;
  const char* const scheme =
      options.certificate_file.empty() ? "http" : "https";
  SY_ASSIGN_OR_RETURN(std::unique_ptr<RouterServer> server,
                      RouterServer::Start(std::move(options)));
  LogInfo(absl::StrCat("serving ", server->served_model_name(), " on ", scheme,
                       "://", host, ":", server->port()));
  return ServeUntilSignal(
      {.drain = [&] { server->Shutdown(absl::GetFlag(FLAGS_drain_timeout)); }});
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
