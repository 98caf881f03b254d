#include "router/openai/stream_id.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "model/sha256.h"

namespace switchyard::router {
namespace {

constexpr size_t kMaxIdBytes = 4096;
constexpr size_t kAnswerDigits = 24;
constexpr size_t kDigestDigits = 8;

bool IsHex(absl::string_view text, size_t digits) {
  return text.size() == digits &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_isxdigit(c) != 0; });
}

bool ParseCount(absl::string_view text, int64_t* count) {
  return !text.empty() && absl::ascii_isdigit(text[0]) != 0 &&
         absl::SimpleAtoi(text, count);
}

bool ParseStream(absl::string_view text, StreamId* out) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '.');
  if (parts.size() != 4 || !IsHex(parts[0], kAnswerDigits) ||
      !ParseCount(parts[1], &out->created) || !IsHex(parts[2], 16) ||
      !absl::SimpleHexAtoi(parts[2], &out->seed) ||
      !IsHex(parts[3], kDigestDigits)) {
    return false;
  }
  out->answer = std::string(parts[0]);
  out->request = std::string(parts[3]);
  return true;
}

bool ParseEvents(absl::string_view text, StreamPosition* out) {
  for (const absl::string_view part : absl::StrSplit(text, '.')) {
    if (out->usage_sent) return false;
    int64_t count = 0;
    if (part == "u" && !out->events.empty()) {
      out->usage_sent = true;
    } else if (ParseCount(part, &count)) {
      out->events.push_back(count);
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace

std::string RequestDigest(absl::string_view body,
                          absl::string_view fingerprint) {
  model::Sha256 sha256;
  sha256.Update(fingerprint);
  sha256.Update(absl::string_view("\0", 1));
  sha256.Update(body);
  return sha256.FinishHex().substr(0, kDigestDigits);
}

std::string FormatStreamId(const StreamId& stream) {
  return absl::StrCat(stream.answer, ".", stream.created, ".",
                      absl::Hex(stream.seed, absl::kZeroPad16), ".",
                      stream.request);
}

std::string FormatEventId(const StreamPosition& position) {
  std::string id = absl::StrCat(FormatStreamId(position.stream), "-",
                                absl::StrJoin(position.events, "."));
  if (position.usage_sent) id += ".u";
  if (position.cached_tokens)
    absl::StrAppend(&id, "-", *position.cached_tokens);
  return id;
}

absl::StatusOr<StreamPosition> ParseEventId(absl::string_view text) {
  StreamPosition position;
  const std::vector<absl::string_view> parts =
      absl::StrSplit(text.substr(0, kMaxIdBytes), '-');
  int64_t cached = 0;
  if (text.size() > kMaxIdBytes || parts.size() < 2 || parts.size() > 3 ||
      !ParseStream(parts[0], &position.stream) ||
      !ParseEvents(parts[1], &position) ||
      (parts.size() == 3 && !ParseCount(parts[2], &cached))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Last-Event-ID \"", text.substr(0, 200),
        "\" is not an id of this server's events; send the whole request "
        "again without it"));
  }
  if (parts.size() == 3) position.cached_tokens = cached;
  return position;
}

}  // namespace switchyard::router
