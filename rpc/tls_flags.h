// The flags of tls.h, the same for every service:
//   --tls_cert_file, --tls_key_file, --tls_ca_file, --tls_peer_name

#ifndef SWITCHYARD_RPC_TLS_FLAGS_H_
#define SWITCHYARD_RPC_TLS_FLAGS_H_

#include "absl/status/status.h"

namespace switchyard::rpc {

// UseTls with what the flags say; nothing if none is set. For mains, once the
// command line is parsed and before anything of gRPC.
absl::Status UseTlsOfFlags();

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_TLS_FLAGS_H_
