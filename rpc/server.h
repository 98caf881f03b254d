// A gRPC server with health, reflection and this project's settings.

#ifndef SWITCHYARD_RPC_SERVER_H_
#define SWITCHYARD_RPC_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/impl/service_type.h"

namespace switchyard::rpc {

// Thread-safe.
class Server {
 public:
  // Listens on host:port (0 picks a free one), or on a socket when `host` is
  // unix:/path (`port` is then ignored), and serves `services` (not owned;
  // outlive this) plus grpc.health.v1.Health and reflection. Health says
  // NOT_SERVING until SetServing(true). `num_queues` completion queues are made
  // for async services (completion_queue()); 0 for callback services only. All
  // of them need a thread in Next() from now on: connections are spread over
  // them, and one that nobody looks at stalls its connections.
  // UNAVAILABLE: the port is in use or the address is wrong (names it).
  static absl::StatusOr<std::unique_ptr<Server>> Start(
      const std::string& host, int port,
      absl::Span<grpc::Service* const> services, int num_queues = 0);
  virtual ~Server() = default;

  virtual int port() const = 0;
  virtual grpc::ServerCompletionQueue* completion_queue(int index) = 0;

  // The health of "" and of every service. Who watches it hears of changes
  // only.
  virtual void SetServing(bool serving) = 0;

  // Health turns to NOT_SERVING. Stops accepting, lets calls finish for
  // `grace`, then cancels them. A client that watches the health holds a call
  // open: it is cancelled at the end of `grace`. The completion queues stay
  // open, since a cancelled call still has last operations to start: whoever
  // polls a queue shuts it down after those, and drains it until Next() returns
  // false, before this goes. Idempotent.
  virtual void Shutdown(absl::Duration grace) = 0;
};

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_SERVER_H_
