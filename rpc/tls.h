// Mutual TLS between the services.
//
// Above: the mains, by their flags (tls_flags.h). Below: channel.cc and
// server.cc ask here what to speak.

#ifndef SWITCHYARD_RPC_TLS_H_
#define SWITCHYARD_RPC_TLS_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"

namespace switchyard::rpc {

// PEM files. They are read again when they change, for connections to come.
struct TlsFiles {
  std::string certificate;  // of this process, with what leads to the CA
  std::string private_key;
  // Of those who sign the peers' certificates. Clients and servers both must
  // have one that it signed.
  std::string ca;
  // The DNS name that servers' certificates have; "": the host that is
  // connected to.
  std::string peer_name;
};

// From now on this process's servers and channels, but those over Unix sockets,
// which the file system guards, speak TLS and nothing else. Once, before the
// first of them is made.
// INVALID_ARGUMENT: a file is not named. NOT_FOUND, ...: it cannot be read.
// FAILED_PRECONDITION: it has no certificate or key, or they do not fit.
absl::Status UseTls(const TlsFiles& files);

// What NewChannel and Server::Start speak with or at `address`.
std::shared_ptr<grpc::ChannelCredentials> ChannelCredentialsFor(
    const std::string& address);
std::shared_ptr<grpc::ServerCredentials> ServerCredentialsFor(
    const std::string& host);
// TlsFiles::peer_name; "" without TLS.
const std::string& TlsPeerName();

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_TLS_H_
