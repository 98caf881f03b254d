// An attention worker at the other end of a network.
//
// Above: router/routing chooses it, router/openai sends requests. Below:
// generation_codec.h turns them into messages.

#ifndef SWITCHYARD_ROUTER_CLIENT_GRPC_ATTENTION_CLIENT_H_
#define SWITCHYARD_ROUTER_CLIENT_GRPC_ATTENTION_CLIENT_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router/client/attention_client.h"

namespace switchyard::router {

struct GrpcAttentionClientOptions {
  std::string address;  // host:port or unix:/path; also the client's name

  // How often the worker is asked how it is, and how long an answer may take.
  // One that cannot be reached is tried all the time, as often as the channel
  // connects; one that loads, at the shorter of both intervals: requests may
  // wait for it to be ready.
  absl::Duration poll_interval = absl::Milliseconds(250);
  absl::Duration loading_poll_interval = absl::Milliseconds(50);
  absl::Duration poll_timeout = absl::Milliseconds(750);
  // A worker that is connected but does not answer for this long is silent: no
  // request goes there if another is to be had, and those there are advised to
  // move.
  absl::Duration silent_after = absl::Seconds(1);
  // And for this long it still counts as reachable: it may be too busy. A lost
  // connection counts at once.
  absl::Duration unreachable_after = absl::Seconds(5);
  // How long one state may be on its way to another worker.
  absl::Duration hand_over_timeout = absl::Seconds(30);
};

// One gRPC stream a request; a thread ("sy-poll") asks the worker for its
// state, another ("sy-hand-over") brings states elsewhere when it drains.
//
// What listeners get besides the worker's own errors: UNAVAILABLE when it
// cannot be reached or dies on the way (the request may go to another worker,
// with what came so far as resumed_output_ids); CANCELLED only after Cancel();
// INTERNAL when it breaks the protocol. All name the worker. Requests carry the
// model's fingerprint that the worker said last.
//
// The destructor cancels what runs and waits for its listeners' OnDone, so it
// must not be called by one. Thread-safe.
//
// INVALID_ARGUMENT: no address, or an interval that is not above 0.
absl::StatusOr<std::unique_ptr<AttentionClient>> NewGrpcAttentionClient(
    GrpcAttentionClientOptions options);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_CLIENT_GRPC_ATTENTION_CLIENT_H_
