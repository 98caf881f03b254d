#include "rpc/tls_flags.h"

#include <string>

#include "absl/flags/flag.h"
#include "rpc/tls.h"

ABSL_FLAG(std::string, tls_cert_file, "",
          "this process's certificate (PEM): between the services, TLS with "
          "certificates on both ends; default: no TLS");
ABSL_FLAG(std::string, tls_key_file, "", "the certificate's private key (PEM)");
ABSL_FLAG(std::string, tls_ca_file, "",
          "who signs the certificates of the other services (PEM)");
ABSL_FLAG(std::string, tls_peer_name, "",
          "DNS name in the certificates of services that this one connects "
          "to; default: the host in their address");

namespace switchyard::rpc {

absl::Status UseTlsOfFlags() {
  const TlsFiles files = {.certificate = absl::GetFlag(FLAGS_tls_cert_file),
                          .private_key = absl::GetFlag(FLAGS_tls_key_file),
                          .ca = absl::GetFlag(FLAGS_tls_ca_file),
                          .peer_name = absl::GetFlag(FLAGS_tls_peer_name)};
  if (files.certificate.empty() && files.private_key.empty() &&
      files.ca.empty()) {
    return absl::OkStatus();
  }
  return UseTls(files);
}

}  // namespace switchyard::rpc
