// The server's certificate, as it is now.

#ifndef SWITCHYARD_ROUTER_HTTP_TLS_CONTEXT_H_
#define SWITCHYARD_ROUTER_HTTP_TLS_CONTEXT_H_

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "boost/asio/ssl/context.hpp"

namespace switchyard::router {

// Reads the files again when they have changed, looking every few seconds while
// connections come. Files that became wrong are logged, and the last right
// certificate is used on. TLS 1.2 and 1.3. Thread-safe.
class TlsContext {
 public:
  // PEM: the certificate with what leads to its CA, and its key.
  // INVALID_ARGUMENT: one of them is not named. NOT_FOUND, ...: it cannot be
  // read. FAILED_PRECONDITION: it is no such thing, or they do not fit.
  static absl::StatusOr<std::unique_ptr<TlsContext>> Create(
      std::string certificate_file, std::string private_key_file,
      const Clock* clock = Clock::Real());

  // Of connections that begin now.
  std::shared_ptr<boost::asio::ssl::context> Current()
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  TlsContext(std::string certificate_file, std::string private_key_file,
             const Clock* clock)
      : certificate_file_(std::move(certificate_file)),
        private_key_file_(std::move(private_key_file)),
        clock_(clock) {}

  absl::StatusOr<std::shared_ptr<boost::asio::ssl::context>> Read() const;
  // Of both files: changes with them.
  std::string Version() const;

  const std::string certificate_file_;
  const std::string private_key_file_;
  const Clock* const clock_;
  Mutex mutex_;
  std::shared_ptr<boost::asio::ssl::context> current_ ABSL_GUARDED_BY(mutex_);
  std::string version_ ABSL_GUARDED_BY(mutex_);
  absl::Time looked_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_HTTP_TLS_CONTEXT_H_
