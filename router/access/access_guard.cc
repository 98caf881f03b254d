#include "router/access/access_guard.h"

#include <sys/stat.h>

#include <utility>

#include "absl/algorithm/container.h"
#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"

namespace switchyard::router {
namespace {

constexpr int64_t kMaxKeyFileBytes = 16 << 20;
constexpr absl::Duration kLookInterval = absl::Seconds(1);

constexpr absl::string_view kOpenPaths[] = {"/",        "/livez",  "/readyz",
                                            "/health",  "/ready",  "/live",
                                            "/metrics", "/version"};
// What changes the server for everybody, or shows everybody's work.
constexpr absl::string_view kAdminPaths[] = {"/flush_cache",
                                             "/reset_prefix_cache"};

// Changes with the file; "" if there is none.
std::string VersionOf(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return "";
  return absl::StrCat(info.st_ino, "/", info.st_size, "/", info.st_mtim.tv_sec,
                      ".", info.st_mtim.tv_nsec);
}

std::string Describe(const ClientLimits& limits) {
  std::vector<std::string> parts;
  if (limits.requests_per_minute > 0) {
    parts.push_back(absl::StrCat(limits.requests_per_minute, " requests"));
  }
  if (limits.tokens_per_minute > 0) {
    parts.push_back(absl::StrCat(limits.tokens_per_minute, " tokens"));
  }
  return absl::StrJoin(parts, " and ");
}

}  // namespace

std::string KeyOf(const std::string* authorization,
                  const std::string* x_api_key) {
  if (authorization != nullptr) {
    constexpr size_t kScheme = sizeof("Bearer ") - 1;
    if (absl::StartsWithIgnoreCase(*authorization, "Bearer ")) {
      return std::string(
          absl::StripAsciiWhitespace(authorization->substr(kScheme)));
    }
  }
  return x_api_key == nullptr
             ? ""
             : std::string(absl::StripAsciiWhitespace(*x_api_key));
}

AccessGuard::AccessGuard(Options options)
    : options_(std::move(options)), limiter_(options_.clock) {
  const auto refused = [&](const char* reason) {
    return options_.registry == nullptr
               ? nullptr
               : options_.registry->AddCounter(
                     "switchyard_router_requests_refused_total",
                     "Requests that were not let in, by reason.",
                     {{"reason", reason}});
  };
  refused_unauthorized_ = refused("unauthorized");
  refused_forbidden_ = refused("forbidden");
  refused_too_many_ = refused("rate_limit");
  int number = 0;
  for (const std::string& key : options_.api_keys) {
    fixed_clients_.push_back({.name = absl::StrCat("key-", ++number),
                              .sha256 = HashOfKey(key),
                              .limits = options_.limits});
  }
  if (!options_.admin_api_key.empty()) {
    fixed_clients_.push_back({.name = "admin",
                              .sha256 = HashOfKey(options_.admin_api_key),
                              .admin = true});
  }
  clients_ = std::make_shared<const std::vector<ClientKey>>(fixed_clients_);
}

absl::StatusOr<std::unique_ptr<AccessGuard>> AccessGuard::Create(
    Options options) {
  if (absl::c_linear_search(options.api_keys, "")) {
    return absl::InvalidArgumentError(
        "--api-key: an empty key would let everybody in");
  }
  if (options.limits.requests_per_minute < 0 ||
      options.limits.tokens_per_minute < 0) {
    return absl::InvalidArgumentError(
        "limits of requests and tokens a minute must be 0 (none) or more");
  }
  auto guard = absl::WrapUnique(new AccessGuard(std::move(options)));
  MutexLock lock(&guard->mutex_);
  SY_RETURN_IF_ERROR(guard->ReadFileIfChanged());
  return guard;
}

absl::Status AccessGuard::ReadFileIfChanged() {
  if (options_.key_file.empty()) return absl::OkStatus();
  const absl::Time now = options_.clock->Now();
  if (now < looked_ + kLookInterval && now >= looked_) return absl::OkStatus();
  looked_ = now;
  const std::string version = VersionOf(options_.key_file);
  if (version == version_ && !version.empty()) return absl::OkStatus();
  version_ = version;
  SY_ASSIGN_OR_RETURN(const std::string text,
                      ReadFile(options_.key_file, kMaxKeyFileBytes));
  absl::StatusOr<std::vector<ClientKey>> read =
      ParseKeyFile(text, options_.limits);
  if (!read.ok()) {
    return absl::Status(read.status().code(),
                        absl::StrCat(options_.key_file, ", ",
                                     std::string(read.status().message())));
  }
  if (read->empty() && fixed_clients_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        options_.key_file, " has no client; nobody could come in"));
  }
  read->insert(read->end(), fixed_clients_.begin(), fixed_clients_.end());
  clients_ = std::make_shared<const std::vector<ClientKey>>(*std::move(read));
  LogInfo(absl::StrCat("API keys of ", clients_->size(), " clients"));
  return absl::OkStatus();
}

std::shared_ptr<const std::vector<ClientKey>> AccessGuard::Clients() {
  MutexLock lock(&mutex_);
  if (const absl::Status status = ReadFileIfChanged(); !status.ok()) {
    LogError(absl::StrCat("the API keys of before still count: ",
                          status.ToString()));
  }
  return clients_;
}

AccessGuard::Decision AccessGuard::Judge(absl::string_view method,
                                         absl::string_view path,
                                         absl::string_view key) {
  Decision decision;
  ClientLimits limits = options_.limits;
  const auto refuse = [&](Verdict verdict, metrics::Counter* counter,
                          std::string message) {
    if (counter != nullptr) counter->Increment();
    decision.verdict = verdict;
    decision.message = std::move(message);
    return decision;
  };
  if (absl::c_linear_search(kOpenPaths, path) || method == "OPTIONS") {
    return decision;
  }
  const auto clients = Clients();
  if (!clients->empty()) {
    const ClientKey* const client =
        key.empty() ? nullptr : FindClient(*clients, key);
    if (client == nullptr) {
      return refuse(Verdict::kUnauthorized, refused_unauthorized_,
                    key.empty()
                        ? "this server wants an API key: Authorization: Bearer "
                          "KEY, or x-api-key: KEY"
                        : "this API key is not known here");
    }
    decision.client = client->name;
    limits = client->limits;
    if (!client->admin && absl::c_linear_search(kAdminPaths, path) &&
        absl::c_any_of(*clients, [](const ClientKey& c) { return c.admin; })) {
      return refuse(Verdict::kForbidden, refused_forbidden_,
                    absl::StrCat(path, " wants an admin's API key"));
    }
  }
  if (method != "POST") return decision;
  decision.retry_after = limiter_.TakeRequest(decision.client, limits);
  if (decision.retry_after > absl::ZeroDuration()) {
    return refuse(Verdict::kTooMany, refused_too_many_,
                  absl::StrCat("too much in a minute: ", Describe(limits),
                               " are allowed; come again in ",
                               absl::FormatDuration(absl::Ceil(
                                   decision.retry_after, absl::Seconds(1)))));
  }
  return decision;
}

void AccessGuard::Charge(const std::string& client, int64_t tokens) {
  ClientLimits limits = options_.limits;
  const std::shared_ptr<const std::vector<ClientKey>> clients = Clients();
  for (const ClientKey& known : *clients) {
    if (known.name == client) limits = known.limits;
  }
  limiter_.ChargeTokens(client, limits, tokens);
}

}  // namespace switchyard::router
