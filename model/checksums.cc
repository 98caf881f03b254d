#include "model/checksums.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <system_error>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "model/sha256.h"

namespace switchyard::model {
namespace {

constexpr size_t kHexDigits = 64;
constexpr int64_t kMaxChecksumsBytes = 1 << 20;
// Between two calls of `progress`.
constexpr size_t kPieceBytes = 64 << 20;

absl::Status CheckAllListed(const std::string& directory,
                            const std::map<std::string, std::string>& sums) {
  std::error_code error;
  // increment(error) and not ++: the latter throws.
  for (std::filesystem::directory_iterator it(directory, error), end;
       !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (absl::EndsWith(name, ".safetensors") && sums.count(name) == 0) {
      return absl::FailedPreconditionError(
          absl::StrCat(directory, "/", kChecksumsFile, " does not list ", name,
                       ": make it again with sha256sum"));
    }
  }
  if (error) {
    return absl::NotFoundError(absl::StrCat(directory, ": ", error.message()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::map<std::string, std::string>> ParseChecksums(
    absl::string_view text) {
  std::map<std::string, std::string> sums;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    if (line.empty()) continue;
    const absl::string_view hex = line.substr(0, kHexDigits);
    const absl::string_view rest =
        line.size() > kHexDigits ? line.substr(kHexDigits) : "";
    const bool good =
        std::all_of(hex.begin(), hex.end(), absl::ascii_isxdigit) &&
        (absl::StartsWith(rest, "  ") || absl::StartsWith(rest, " *")) &&
        rest.size() > 2;
    if (!good) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line_number, " of ", kChecksumsFile,
                       " is not \"<64 hex digits>  <file name>\""));
    }
    const std::string name(rest.substr(2));
    if (absl::StrContains(name, '/')) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line_number, " of ", kChecksumsFile, ": \"",
                       name, "\" must be a name without folders"));
    }
    if (!sums.emplace(name, absl::AsciiStrToLower(hex)).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line_number, " of ", kChecksumsFile, ": ", name,
                       " is listed twice"));
    }
  }
  if (sums.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(kChecksumsFile, " lists no file"));
  }
  return sums;
}

absl::Status VerifyChecksums(
    const std::string& directory,
    const std::function<void(int64_t done, int64_t total)>& progress) {
  const std::string path = absl::StrCat(directory, "/", kChecksumsFile);
  SY_ASSIGN_OR_RETURN(const std::string text,
                      ReadFile(path, kMaxChecksumsBytes));
  const absl::StatusOr<std::map<std::string, std::string>> sums =
      ParseChecksums(text);
  if (!sums.ok()) {
    return absl::Status(sums.status().code(),
                        absl::StrCat(path, ": ", sums.status().message()));
  }
  SY_RETURN_IF_ERROR(CheckAllListed(directory, *sums));

  std::map<std::string, std::unique_ptr<MappedFile>> files;
  int64_t total = 0;
  for (const auto& [name, expected] : *sums) {
    SY_ASSIGN_OR_RETURN(files[name],
                        MappedFile::Open(absl::StrCat(directory, "/", name)));
    total += static_cast<int64_t>(files[name]->bytes().size());
  }
  int64_t done = 0;
  for (const auto& [name, expected] : *sums) {
    Sha256 hash;
    for (absl::Span<const uint8_t> rest = files[name]->bytes();
         !rest.empty();) {
      const absl::Span<const uint8_t> piece =
          rest.first(std::min(rest.size(), kPieceBytes));
      hash.Update(piece);
      rest.remove_prefix(piece.size());
      done += static_cast<int64_t>(piece.size());
      if (progress) progress(done, total);
    }
    const std::string found = hash.FinishHex();
    if (found != expected) {
      return absl::DataLossError(absl::StrCat(
          directory, "/", name, ": the file is damaged: its SHA-256 is ", found,
          ", ", kChecksumsFile, " says ", expected, ": fetch it again"));
    }
  }
  return absl::OkStatus();
}

}  // namespace switchyard::model
