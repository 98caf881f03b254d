#include "router/access/client_key.h"

#include <set>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "model/sha256.h"

namespace switchyard::router {
namespace {

constexpr size_t kHexDigits = 64;

bool IsHash(absl::string_view text) {
  return text.size() == kHexDigits && absl::c_all_of(text, [](unsigned char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

// "": fine, else what is wrong.
std::string ParseWord(absl::string_view word, ClientKey* client) {
  if (word == "admin") {
    client->admin = true;
    return "";
  }
  int64_t* limit = nullptr;
  absl::string_view number = word;
  if (absl::ConsumePrefix(&number, "rpm=")) {
    limit = &client->limits.requests_per_minute;
  } else if (absl::ConsumePrefix(&number, "tpm=")) {
    limit = &client->limits.tokens_per_minute;
  } else {
    return absl::StrCat("\"", word, "\" is none of admin, rpm=N and tpm=N");
  }
  if (!absl::SimpleAtoi(number, limit) || *limit < 0) {
    return absl::StrCat("\"", word, "\" has no number that is 0 or more");
  }
  return "";
}

}  // namespace

std::string HashOfKey(absl::string_view key) {
  model::Sha256 hash;
  hash.Update(key);
  return hash.FinishHex();
}

absl::StatusOr<std::vector<ClientKey>> ParseKeyFile(
    absl::string_view text, const ClientLimits& defaults) {
  std::vector<ClientKey> clients;
  std::set<std::string> hashes;
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    const auto error = [&](const std::string& what) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", number, ": ", what));
    };
    const std::vector<absl::string_view> words =
        absl::StrSplit(line, absl::ByAnyChar(" \t\r"), absl::SkipEmpty());
    if (words.empty() || words[0][0] == '#') continue;
    if (words.size() < 2 || !IsHash(words[1])) {
      // The text is not shown: it may be a key.
      return error(
          "the second word is no SHA-256 of a key, 64 lower-case hex digits; "
          "`printf %s KEY | sha256sum` prints it");
    }
    ClientKey client{.name = std::string(words[0]),
                     .sha256 = std::string(words[1]),
                     .limits = defaults};
    for (size_t i = 2; i < words.size(); ++i) {
      const std::string wrong = ParseWord(words[i], &client);
      if (!wrong.empty()) return error(wrong);
    }
    if (!hashes.insert(client.sha256).second) {
      return error(absl::StrCat("the key of \"", client.name,
                                "\" is another client's, too"));
    }
    clients.push_back(std::move(client));
  }
  return clients;
}

const ClientKey* FindClient(const std::vector<ClientKey>& clients,
                            absl::string_view key) {
  // Hashes are compared, so that time tells nothing about the key's bytes, and
  // all of them, so that it does not tell which one was near.
  const std::string hash = HashOfKey(key);
  const ClientKey* found = nullptr;
  for (const ClientKey& client : clients) {
    unsigned difference = 0;
    for (size_t i = 0; i < kHexDigits; ++i) {
      difference |= static_cast<unsigned char>(hash[i]) ^
                    static_cast<unsigned char>(client.sha256[i]);
    }
    if (difference == 0) found = &client;
  }
  return found;
}

}  // namespace switchyard::router
