// gRPC face of the router's membership: workers' streams in, views out.
//
// Above: router/server.cc. Below: router/membership/registry.h.

#ifndef SWITCHYARD_ROUTER_SERVICE_MEMBERSHIP_SERVICE_H_
#define SWITCHYARD_ROUTER_SERVICE_MEMBERSHIP_SERVICE_H_

#include <memory>

#include "absl/time/time.h"
#include "grpcpp/impl/service_type.h"
#include "router/membership/registry.h"

namespace switchyard::router {

struct MembershipServiceOptions {
  MemberRegistry* registry = nullptr;  // not owned; outlives the service
  // Changes of the view that come closer together go out together.
  absl::Duration min_update_interval = absl::Milliseconds(50);
  absl::Duration heat_interval = absl::Seconds(5);
  // How often leases are looked at.
  absl::Duration tick = absl::Milliseconds(50);
};

// Life: constructed; registered with a server (grpc_service()); the server's
// shutdown; destroyed. Streams are gRPC's threads', views go out from
// "sy-members", which looks at the leases, too. Thread-safe.
class MembershipService {
 public:
  static std::unique_ptr<MembershipService> Create(
      const MembershipServiceOptions& options);
  // REQUIRES: the server is shut down.
  virtual ~MembershipService() = default;

  virtual grpc::Service* grpc_service() = 0;
  // Something in the registry has changed: what its listener is to call.
  virtual void Changed() = 0;
  // Ends all streams, and those that come. Before the server's shutdown.
  virtual void Close() = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_SERVICE_MEMBERSHIP_SERVICE_H_
