// The flags of the front: how requests come in, who may send them, and how
// many. The same for a router of its own and for `switchyard serve`, which has
// one in its process. What a router's address is, and which workers it knows,
// is its main's business.

#ifndef SWITCHYARD_ROUTER_FLAGS_H_
#define SWITCHYARD_ROUTER_FLAGS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "router/server.h"

namespace switchyard::router {

// What the flags say, for mains, once the command line is parsed; model_dir,
// host, port, workers and what concerns members are as Options has them.
// INVALID_ARGUMENT: a value out of range, or no such chat format.
absl::StatusOr<RouterServer::Options> OptionsFromFlags();

// The flags behind these functions, by name with underscores.
std::vector<std::string> FlagNames();

// --drain_timeout, for RouterServer::Shutdown.
absl::Duration DrainTimeoutFromFlags();

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_FLAGS_H_
