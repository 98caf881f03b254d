// Messages with one large `bytes` field, which does not pass through Protobuf.
//
// On the wire they are Protobuf messages like all others: an outer message with
// one field, an inner message, one of whose fields is the payload. A sender
// writes the inner message's other fields first, then the payload, which lies
// in its own memory; a receiver parses those fields, and looks at the payload
// where the network put it.

#ifndef SWITCHYARD_RPC_PAYLOAD_MESSAGE_H_
#define SWITCHYARD_RPC_PAYLOAD_MESSAGE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/types/optional.h"
#include "base/byte_pieces.h"
#include "google/protobuf/message_lite.h"

namespace switchyard::rpc {

// Field numbers.
struct PayloadField {
  uint32_t inner = 0;    // of the inner message in the outer one
  uint32_t payload = 0;  // of the payload in the inner one
};

// All of the outer message but the payload, which has `payload_size` bytes and
// comes right after this. REQUIRES: `inner`'s payload field is not set; all
// together below 2 GiB.
std::string EncodeBeforePayload(PayloadField field,
                                const google::protobuf::MessageLite& inner,
                                size_t payload_size);

struct SplitMessage {
  std::string inner;   // the inner message without its payload
  BytePieces payload;  // empty if the message has none
};

// The parts of an outer message that has the inner field once, at most one
// payload in it, and nothing else. Null for all others, well formed or not:
// Protobuf's own parser tells what those are. `inner` is yet to be parsed.
absl::optional<SplitMessage> SplitPayload(const BytePieces& message,
                                          PayloadField field);

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_PAYLOAD_MESSAGE_H_
