// SHA-256, by OpenSSL's libcrypto.

#ifndef SWITCHYARD_MODEL_SHA256_H_
#define SWITCHYARD_MODEL_SHA256_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace switchyard::model {

// One hash: Update any number of times, then FinishHex once.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(absl::Span<const uint8_t> bytes);
  void Update(absl::string_view text);
  // 64 lower-case hex digits.
  std::string FinishHex();

 private:
  struct Context;  // keeps OpenSSL's headers out of this one
  const std::unique_ptr<Context> context_;
};

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_SHA256_H_
