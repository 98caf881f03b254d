// Names of services that run on several machines.

#ifndef SWITCHYARD_RPC_RESOLVER_H_
#define SWITCHYARD_RPC_RESOLVER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::rpc {

// Every address of host:port, as "1.2.3.4:port" or "[::1]:port", ascending and
// without repeats; one that is numeric, or unix:/path, is itself. Asks the
// system (hosts, DNS), which may take seconds: not for threads that serve.
// INVALID_ARGUMENT: CheckAddress(). UNAVAILABLE: the name has no address now.
absl::StatusOr<std::vector<std::string>> ResolveAll(absl::string_view address);

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_RESOLVER_H_
