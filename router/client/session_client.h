// States of sessions, out of one attention worker and into another.
//
// Above: grpc_attention_client.cc when a worker drains, `switchyard session`
// for people. Below: switchyard.v1.Session (proto/session.proto).

#ifndef SWITCHYARD_ROUTER_CLIENT_SESSION_CLIENT_H_
#define SWITCHYARD_ROUTER_CLIENT_SESSION_CLIENT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace switchyard::router {

// `tokens` or `hand_over_request_id`.
struct StateQuery {
  std::vector<int32_t> tokens;  // the longest kept prefix of them
  std::string cache_scope;      // of `tokens`: TokenRequest's
  std::string hand_over_request_id;
  std::string model_fingerprint;  // empty: any
};

struct StateMoved {
  int64_t num_tokens = 0;
  int64_t bytes = 0;          // of the object
  bool already_held = false;  // the receiver had it
};

// An object on its way to a worker. One without Finish() is broken off.
class StateUpload {
 public:
  virtual ~StateUpload() = default;
  // The next part. False: the worker wants no more, for a reason that Finish()
  // tells.
  virtual bool Write(absl::string_view part) = 0;
  // Once, last.
  virtual absl::StatusOr<StateMoved> Finish() = 0;
};

// One attention worker's states, over a connection of their own, so that they
// do not stand in the way of tokens. The calls block. Thread-safe.
//
// Errors are the worker's (proto/session.proto says which), with its address;
// CANCELLED after CancelAll(); DEADLINE_EXCEEDED.
class SessionClient {
 public:
  // INVALID_ARGUMENT: not host:port nor unix:/path.
  static absl::StatusOr<std::shared_ptr<SessionClient>> Create(
      const std::string& address);
  virtual ~SessionClient() = default;

  // Gives the object to `take`, part by part; its error ends the call.
  virtual absl::StatusOr<StateMoved> Save(
      const StateQuery& query,
      absl::FunctionRef<absl::Status(absl::string_view)> take,
      absl::Time deadline) = 0;

  // Sends an object.
  virtual std::unique_ptr<StateUpload> Load(absl::Time deadline) = 0;

  // From here to there, part by part.
  absl::StatusOr<StateMoved> Move(const StateQuery& query, SessionClient* to,
                                  absl::Time deadline);

  // Ends the calls in progress, and those to come.
  virtual void CancelAll() = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_CLIENT_SESSION_CLIENT_H_
