// Who may use the server: clients, and the hashes of their keys.

#ifndef SWITCHYARD_ROUTER_ACCESS_CLIENT_KEY_H_
#define SWITCHYARD_ROUTER_ACCESS_CLIENT_KEY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::router {

// What one client may take, over all its connections. 0: as much as it wants.
struct ClientLimits {
  int64_t requests_per_minute = 0;
  int64_t tokens_per_minute = 0;  // prompt and output
};

struct ClientKey {
  std::string name;    // of the client: for metrics and messages
  std::string sha256;  // of its key: 64 lower-case hex digits
  bool admin = false;  // may also do what concerns everybody
  ClientLimits limits = {};
};

// 64 lower-case hex digits.
std::string HashOfKey(absl::string_view key);

// A key file: one line for each client,
//   NAME SHA256 [admin] [rpm=N] [tpm=N]
// and empty lines and lines that begin with '#'. Keys themselves are in no
// file; `printf %s KEY | sha256sum` gives what to write. A client without rpm=
// or tpm= has `defaults`. INVALID_ARGUMENT with the line's number.
absl::StatusOr<std::vector<ClientKey>> ParseKeyFile(
    absl::string_view text, const ClientLimits& defaults);

// The client whose key this is; null if it is nobody's. Takes the same time for
// every key of one length, right or wrong.
const ClientKey* FindClient(const std::vector<ClientKey>& clients,
                            absl::string_view key);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ACCESS_CLIENT_KEY_H_
