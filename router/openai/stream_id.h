// A stream that a client can go on with after it lost the connection, at this
// router or another: the ids of its events say all that a router needs to write
// the same bytes again.

#ifndef SWITCHYARD_ROUTER_OPENAI_STREAM_ID_H_
#define SWITCHYARD_ROUTER_OPENAI_STREAM_ID_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"

namespace switchyard::router {

// What the first router drew or read from its clock, and the rest of an answer
// follows from.
struct StreamId {
  std::string answer;   // hex digits, of the answer's "id"
  int64_t created = 0;  // of the answer
  uint64_t seed = 0;
  std::string request;  // RequestDigest()

  friend bool operator==(const StreamId&, const StreamId&) = default;
};

// How far a client has come.
struct StreamPosition {
  StreamId stream;
  std::vector<int64_t> events;  // of each choice
  bool usage_sent = false;      // the event behind the last choice's
  // Tokens of the prompt that a cache had: the one number of an answer that a
  // second run may find another. Absent: not known.
  absl::optional<int64_t> cached_tokens;

  friend bool operator==(const StreamPosition&,
                         const StreamPosition&) = default;
};

// Eight hex digits of what must be the same for an answer to be: the request's
// body, and the model (`fingerprint`).
std::string RequestDigest(absl::string_view body,
                          absl::string_view fingerprint);

// "<answer>.<created>.<seed>.<request>", the header x-stream-id.
std::string FormatStreamId(const StreamId& stream);
// That, and "-<events>[.<events>...][.u][-<cached>]": an event's id.
std::string FormatEventId(const StreamPosition& position);
// INVALID_ARGUMENT: no router wrote that.
absl::StatusOr<StreamPosition> ParseEventId(absl::string_view text);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_STREAM_ID_H_
