// The router as one object: everything that main.cc starts, and tests too.
//
// Above: main.cc, the one-process server, tests. Below: http/, openai/,
// routing/.

#ifndef SWITCHYARD_ROUTER_SERVER_H_
#define SWITCHYARD_ROUTER_SERVER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "metrics/registry.h"
#include "router/client/attention_client.h"
#include "router/http/timer_queue.h"
#include "router/text/chat_format.h"
#include "tracing/span/span.h"

namespace switchyard::router {

// Life: Start() serves at once, whether workers are ready or not (/readyz
// tells); Shutdown() or the destructor ends it. Thread-safe.
class RouterServer {
 public:
  struct Options {
    // Of this, config.json, generation_config.json, the tokenizer's files and
    // the chat template are read; no weights.
    std::string model_dir;
    std::string served_model_name;  // empty: the last part of model_dir
    absl::optional<ChatFormat>
        chat_format;  // absent: recognised by its template

    // Beside those that join; at least one if nobody can (grpc_port).
    std::vector<std::shared_ptr<AttentionClient>> workers;

    std::string host = "127.0.0.1";
    int port = 0;  // 0 picks a free one
    // Membership (proto/membership.proto), grpc.health.v1 and reflection; 0
    // picks a port, -1: none.
    int grpc_port = -1;
    // How members are kept; the clock and the id are the server's business
    // unless given.
    absl::Duration member_heartbeat = absl::Milliseconds(100);
    absl::Duration member_lease = absl::Milliseconds(500);
    // How attention workers that join are reached; null: they are not used.
    std::function<absl::StatusOr<std::unique_ptr<AttentionClient>>(
        const std::string& address)>
        connect_attention_worker;
    std::string certificate_file;  // PEM; with it and its key, HTTPS alone
    std::string private_key_file;
    int http_threads = 2;
    int text_threads = 2;

    // host:port of an OpenTelemetry collector (OTLP over gRPC); "": no traces.
    std::string otlp_traces_endpoint;

    // Whom to let in, and how much each may take; see AccessGuard::Options.
    std::vector<std::string> api_keys;
    std::string admin_api_key;
    std::string api_key_file;
    int64_t requests_per_minute = 0;  // of one client; 0: no limit
    int64_t tokens_per_minute = 0;

    bool strict_fields = false;  // refuse requests with unknown fields

    int64_t context_length = 0;        // 0: the model's max_position_embeddings
    int64_t max_open_requests = 1024;  // beyond: 429
    int64_t max_waiting_tokens = 0;    // of prompts; beyond: 429; 0: no limit
    // A prompt that is expected to wait longer for its first token gets 429; 0:
    // no limit.
    absl::Duration max_ttft = absl::ZeroDuration();
    int64_t max_connections = 4096;           // beyond: 503
    int64_t max_body_bytes = 16 << 20;        // beyond: 413
    int64_t max_queued_texts = 256;           // for the tokenizer; beyond: 429
    int64_t max_send_buffer_bytes = 1 << 20;  // of a stream; beyond: cut off

    int64_t max_stored_response_bytes = 64 << 20;  // of /v1/responses

    absl::Duration request_timeout = absl::Minutes(30);
    absl::Duration keep_alive_interval = absl::Seconds(15);
    absl::Duration failover_timeout = absl::Seconds(30);
    // A request that no worker can take waits for one until this long after one
    // could; then, and if none ever could, 503. 0: 503 at once.
    absl::Duration worker_grace = absl::Seconds(5);
    absl::Duration idle_timeout = absl::Seconds(75);
    absl::Duration read_timeout = absl::Seconds(30);
    absl::Duration write_timeout = absl::Seconds(60);

    // Injected by tests and by the one-process server; null: the server makes
    // its own (spans: of otlp_traces_endpoint). Not owned; outlive this.
    tracing::SpanSink* spans = nullptr;
    TimerQueue* timers = nullptr;
    metrics::Registry* registry = nullptr;
    std::function<uint64_t()> random;  // thread-safe
  };

  // INVALID_ARGUMENT: a file is wrong, the tokenizer has tokens that the model
  // has not (with both numbers), or an option is out of range. NOT_FOUND: a
  // file is missing. UNAVAILABLE: a port is in use.
  static absl::StatusOr<std::unique_ptr<RouterServer>> Start(Options options);
  virtual ~RouterServer() = default;

  virtual int port() const = 0;
  virtual int grpc_port() const = 0;  // -1: none
  virtual const std::string& served_model_name() const = 0;

  // At once: /readyz says 503 and new requests are refused. Answers in progress
  // may end within `drain`; then they get an error, as an event in a stream.
  // Blocks until all is closed. Idempotent.
  virtual void Shutdown(absl::Duration drain) = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_SERVER_H_
