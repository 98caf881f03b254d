// Addresses of peers and of our own servers: host:port, or unix:/path for a
// socket of this machine.

#ifndef SWITCHYARD_RPC_ADDRESS_H_
#define SWITCHYARD_RPC_ADDRESS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace switchyard::rpc {

// INVALID_ARGUMENT: neither host:port nor unix:/path; the text quotes it.
absl::Status CheckAddress(absl::string_view address);

// Whether the peer is on this machine and competes for its CPUs: a socket's
// path, a loopback address, "localhost".
bool IsLocal(absl::string_view address);

bool IsUnixSocket(absl::string_view address);

// What a server on `host` and `port` is reached at, and says in its log: IPv6
// in brackets; a socket's path has no port.
std::string ListeningAddress(const std::string& host, int port);

// The host for what cannot be served on a socket's path (metrics): `host`, or
// loopback instead of a path.
std::string TcpHost(const std::string& host);

// Makes way for a server at unix:/path: removes a socket that a dead process
// left there. INVALID_ARGUMENT: the path is empty or too long. UNAVAILABLE: a
// process listens there. FAILED_PRECONDITION: something else is there.
absl::Status PrepareUnixSocket(absl::string_view address);

// Lets the owner and its group connect, nobody else. Once the server listens.
absl::Status RestrictUnixSocket(absl::string_view address);

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_ADDRESS_H_
