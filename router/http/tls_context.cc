#include "router/http/tls_context.h"

#include <sys/stat.h>

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "boost/asio/buffer.hpp"

namespace switchyard::router {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr int64_t kMaxPemBytes = 1 << 20;
constexpr absl::Duration kLookInterval = absl::Seconds(5);

std::string VersionOf(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return "none";
  return absl::StrCat(info.st_ino, "/", info.st_size, "/", info.st_mtim.tv_sec,
                      ".", info.st_mtim.tv_nsec);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsContext>> TlsContext::Create(
    std::string certificate_file, std::string private_key_file,
    const Clock* clock) {
  if (certificate_file.empty() || private_key_file.empty()) {
    return absl::InvalidArgumentError(
        "HTTPS wants both --ssl-certfile and --ssl-keyfile");
  }
  auto context = absl::WrapUnique(new TlsContext(
      std::move(certificate_file), std::move(private_key_file), clock));
  MutexLock lock(&context->mutex_);
  context->looked_ = clock->Now();
  context->version_ = context->Version();
  SY_ASSIGN_OR_RETURN(context->current_, context->Read());
  return context;
}

std::string TlsContext::Version() const {
  return absl::StrCat(VersionOf(certificate_file_), " ",
                      VersionOf(private_key_file_));
}

absl::StatusOr<std::shared_ptr<asio::ssl::context>> TlsContext::Read() const {
  SY_ASSIGN_OR_RETURN(const std::string certificate,
                      ReadFile(certificate_file_, kMaxPemBytes));
  SY_ASSIGN_OR_RETURN(const std::string key,
                      ReadFile(private_key_file_, kMaxPemBytes));
  auto context =
      std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
  const auto wrong = [](const std::string& file, const error_code& error) {
    return absl::FailedPreconditionError(
        absl::StrCat(file, ": ", error.message()));
  };
  error_code error;
  context->set_options(asio::ssl::context::default_workarounds |
                           asio::ssl::context::no_tlsv1 |
                           asio::ssl::context::no_tlsv1_1,
                       error);
  if (!error) context->use_certificate_chain(asio::buffer(certificate), error);
  if (error) return wrong(certificate_file_, error);
  // Refuses a key that is another certificate's.
  context->use_private_key(asio::buffer(key), asio::ssl::context::pem, error);
  if (error) return wrong(private_key_file_, error);
  return context;
}

std::shared_ptr<asio::ssl::context> TlsContext::Current() {
  MutexLock lock(&mutex_);
  const absl::Time now = clock_->Now();
  if (now >= looked_ && now < looked_ + kLookInterval) return current_;
  looked_ = now;
  std::string version = Version();
  if (version == version_) return current_;
  version_ = std::move(version);
  auto read = Read();
  if (read.ok()) {
    current_ = *std::move(read);
    LogInfo(absl::StrCat("the certificate in ", certificate_file_,
                         " counts from now on"));
  } else {
    LogError(absl::StrCat("the certificate of before is used on: ",
                          read.status().ToString()));
  }
  return current_;
}

}  // namespace switchyard::router
