#include "router/flags.h"

#include <cstdint>
#include <string>
#include <vector>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/text/chat_format.h"

ABSL_FLAG(std::string, served_model_name, "",
          "the model's name in answers; default: the folder's name");
ABSL_FLAG(
    std::string, chat_format, "auto",
    "instruct, thinking, coder, hybrid, switchable, or auto: recognised by "
    "the chat template");
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
ABSL_FLAG(absl::Duration, request_timeout, absl::Hours(1),
          "a request's time, unless it asks for less (field \"timeout\")");
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

// A number of MiB as bytes.
absl::StatusOr<int64_t> Bytes(const char* flag, int64_t mib, int64_t least,
                              int64_t most) {
  if (mib < least || mib > most) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, "=", mib, " is not in [", least, ", ", most, "]"));
  }
  return mib << 20;
}

}  // namespace

absl::StatusOr<RouterServer::Options> OptionsFromFlags() {
  RouterServer::Options options;
  options.served_model_name = absl::GetFlag(FLAGS_served_model_name);
  if (const std::string format = absl::GetFlag(FLAGS_chat_format);
      !format.empty() && format != "auto") {
    SY_ASSIGN_OR_RETURN(options.chat_format, ParseChatFormat(format));
  }
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
  SY_ASSIGN_OR_RETURN(options.max_body_bytes,
                      Bytes("--max-body-mib", absl::GetFlag(FLAGS_max_body_mib),
                            1, kMaxBodyMib));
  SY_ASSIGN_OR_RETURN(
      options.max_stored_response_bytes,
      Bytes("--response-store-mib", absl::GetFlag(FLAGS_response_store_mib), 0,
            kMaxStoreMib));
  options.request_timeout = absl::GetFlag(FLAGS_request_timeout);
  options.keep_alive_interval = absl::GetFlag(FLAGS_sse_ping_interval);
  options.strict_fields = absl::GetFlag(FLAGS_strict_fields);
  return options;
}

std::vector<std::string> FlagNames() {
  // Those that this file defines.
  const std::string here =
      absl::GetFlagReflectionHandle(FLAGS_chat_format).Filename();
  std::vector<std::string> names;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (flag->Filename() == here) names.emplace_back(name);
  }
  return names;
}

absl::Duration DrainTimeoutFromFlags() {
  return absl::GetFlag(FLAGS_drain_timeout);
}

}  // namespace switchyard::router
