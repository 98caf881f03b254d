#include "rpc/tls.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"
#include "openssl/bio.h"
#include "openssl/pem.h"
#include "openssl/x509.h"
#include "rpc/address.h"

namespace switchyard::rpc {
namespace {

constexpr int64_t kMaxPemBytes = 1 << 20;
// A certificate that is about to expire was renewed days before.
constexpr unsigned kRereadSeconds = 10;

struct Tls {
  TlsFiles files;
  std::shared_ptr<grpc::experimental::CertificateProviderInterface> provider;
};

// Set once, by UseTls, while there is one thread; lives for ever.
const Tls* tls = nullptr;

struct Free {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};

template <typename T, typename Read>
absl::StatusOr<std::unique_ptr<T, Free>> ReadPem(const std::string& path,
                                                 const char* flag,
                                                 const char* what, Read read) {
  if (path.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        flag,
        " is not set; TLS between the services wants a certificate, its "
        "key and a CA"));
  }
  SY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxPemBytes));
  const std::unique_ptr<BIO, Free> bio(
      BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  std::unique_ptr<T, Free> found(read(bio.get(), nullptr, nullptr, nullptr));
  if (found == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat(flag, ": ", path, " has no ", what, " in PEM"));
  }
  return found;
}

// gRPC itself would take any file, and then fail every connection.
absl::Status Check(const TlsFiles& files) {
  SY_ASSIGN_OR_RETURN(const auto certificate,
                      ReadPem<X509>(files.certificate, "--tls-cert-file",
                                    "certificate", PEM_read_bio_X509));
  SY_ASSIGN_OR_RETURN(
      const auto key,
      ReadPem<EVP_PKEY>(files.private_key, "--tls-key-file", "private key",
                        PEM_read_bio_PrivateKey));
  const auto ca = ReadPem<X509>(files.ca, "--tls-ca-file", "certificate",
                                PEM_read_bio_X509);
  SY_RETURN_IF_ERROR(ca.status());
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return absl::FailedPreconditionError(
        absl::StrCat("the key in ", files.private_key,
                     " is not that of the certificate in ", files.certificate));
  }
  return absl::OkStatus();
}

void Watch(grpc::experimental::TlsCredentialsOptions* options) {
  options->set_certificate_provider(tls->provider);
  options->watch_root_certs();
  options->watch_identity_key_cert_pairs();
}

}  // namespace

absl::Status UseTls(const TlsFiles& files) {
  SY_CHECK(tls == nullptr);
  SY_RETURN_IF_ERROR(Check(files));
  tls = new Tls{
      .files = files,
      .provider =
          std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
              files.private_key, files.certificate, files.ca, kRereadSeconds)};
  return absl::OkStatus();
}

std::shared_ptr<grpc::ChannelCredentials> ChannelCredentialsFor(
    const std::string& address) {
  if (tls == nullptr || IsUnixSocket(address)) {
    return grpc::InsecureChannelCredentials();
  }
  grpc::experimental::TlsChannelCredentialsOptions options;
  Watch(&options);
  return grpc::experimental::TlsCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> ServerCredentialsFor(
    const std::string& host) {
  if (tls == nullptr || IsUnixSocket(host)) {
    return grpc::InsecureServerCredentials();
  }
  grpc::experimental::TlsServerCredentialsOptions options(tls->provider);
  Watch(&options);
  options.set_cert_request_type(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return grpc::experimental::TlsServerCredentials(options);
}

const std::string& TlsPeerName() {
  static const std::string* const none = new std::string;
  return tls == nullptr ? *none : tls->files.peer_name;
}

}  // namespace switchyard::rpc
