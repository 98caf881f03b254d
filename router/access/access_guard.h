// The front door: whose request this is, and whether it may come in now.
//
// Above: openai/api.h asks for every request, and says what it took. Below:
// client_key.h, rate_limiter.h.

#ifndef SWITCHYARD_ROUTER_ACCESS_ACCESS_GUARD_H_
#define SWITCHYARD_ROUTER_ACCESS_ACCESS_GUARD_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "metrics/registry.h"
#include "router/access/client_key.h"
#include "router/access/rate_limiter.h"

namespace switchyard::router {

// Thread-safe.
class AccessGuard {
 public:
  struct Options {
    // Each is one client's, called "key-1", "key-2", ...
    std::vector<std::string> api_keys = {};
    std::string admin_api_key = "";  // empty: none
    // As ParseKeyFile says; read again, within a second, when it changes. A
    // file that becomes wrong is logged, and the last right one counts.
    std::string key_file = "";
    // Of clients that have no limits of their own. Without any key these count
    // for everybody together.
    ClientLimits limits = {};

    const Clock* clock = Clock::Real();     // not owned, like the registry
    metrics::Registry* registry = nullptr;  // outlive this
  };

  // INVALID_ARGUMENT, NOT_FOUND, ...: the file, or an empty key.
  static absl::StatusOr<std::unique_ptr<AccessGuard>> Create(Options options);

  enum class Verdict {
    kWelcome,
    kUnauthorized,  // no key, or nobody's
    kForbidden,     // only an admin may
    kTooMany,       // later
  };
  struct Decision {
    Verdict verdict = Verdict::kWelcome;
    // For people, if not welcome; names no key.
    std::string message;
    absl::Duration retry_after;  // kTooMany
    std::string client;          // whose key it is; "": there are no keys
  };

  // About a request to `path` with this key ("": none). Some paths are open to
  // all, for probes and scrapers: /livez, /readyz, /health, /metrics and the
  // page at /.
  // Limits count for what makes tokens: POST requests.
  Decision Judge(absl::string_view method, absl::string_view path,
                 absl::string_view key) ABSL_LOCKS_EXCLUDED(mutex_);

  // What a request of `client` (Decision::client) took in the end.
  void Charge(const std::string& client, int64_t tokens)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  explicit AccessGuard(Options options);

  // The clients of now; reads a changed file.
  std::shared_ptr<const std::vector<ClientKey>> Clients()
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status ReadFileIfChanged() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  std::vector<ClientKey> fixed_clients_;  // of the flags
  RateLimiter limiter_;
  metrics::Counter* refused_unauthorized_ = nullptr;
  metrics::Counter* refused_forbidden_ = nullptr;
  metrics::Counter* refused_too_many_ = nullptr;

  Mutex mutex_;
  std::shared_ptr<const std::vector<ClientKey>> clients_
      ABSL_GUARDED_BY(mutex_);
  absl::Time looked_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  std::string version_ ABSL_GUARDED_BY(mutex_);  // of the file that was read
};

// The key in an Authorization header ("Bearer KEY") or in x-api-key; "" if
// there is none. Either may be null.
std::string KeyOf(const std::string* authorization,
                  const std::string* x_api_key);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ACCESS_ACCESS_GUARD_H_
