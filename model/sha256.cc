#include "model/sha256.h"

#include <openssl/evp.h>

#include "absl/strings/escaping.h"
#include "base/check.h"

namespace switchyard::model {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
};

// libcrypto fails here only when memory is exhausted or SHA-256 is not
// provided: neither can be answered by a caller.
Sha256::Sha256() : context_(std::make_unique<Context>()) {
  SY_CHECK(context_->evp != nullptr);
  SY_CHECK(EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_->evp); }

void Sha256::Update(absl::Span<const uint8_t> bytes) {
  SY_CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
}

void Sha256::Update(absl::string_view text) {
  Update(absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(text.data()),
                             text.size()));
}

std::string Sha256::FinishHex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int bytes = 0;
  SY_CHECK(EVP_DigestFinal_ex(context_->evp, digest, &bytes) == 1);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), bytes));
}

}  // namespace switchyard::model
