#include "rpc/payload_message.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/check.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/wire_format_lite.h"

namespace switchyard::rpc {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedOutputStream;

constexpr size_t kMaxVarintBytes = 10;
// Of a tag or a length: Protobuf takes no longer ones.
constexpr size_t kMaxShortVarintBytes = 5;
// A tag and a length.
constexpr size_t kMaxPrefixBytes = 2 * kMaxVarintBytes;

uint32_t LengthDelimitedTag(uint32_t field) {
  return WireFormatLite::MakeTag(static_cast<int>(field),
                                 WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
}

uint8_t* WritePrefix(uint32_t field, size_t size, uint8_t* to) {
  to = CodedOutputStream::WriteVarint32ToArray(LengthDelimitedTag(field), to);
  return CodedOutputStream::WriteVarint64ToArray(size, to);
}

// Walks through bytes that may be anything.
class FieldWalker {
 public:
  FieldWalker(const BytePieces& bytes, size_t begin, size_t end)
      : bytes_(bytes), at_(begin), end_(end) {}

  bool done() const { return at_ == end_; }
  size_t at() const { return at_; }

  bool ReadVarint(size_t max_bytes, uint64_t* value) {
    uint8_t bytes[kMaxVarintBytes];
    const size_t n = std::min(max_bytes, end_ - at_);
    bytes_.CopyTo(at_, n, bytes);
    *value = 0;
    for (size_t i = 0; i < n; ++i) {
      *value |= static_cast<uint64_t>(bytes[i] & 0x7f) << (7 * i);
      if (bytes[i] < 0x80) {
        at_ += i + 1;
        return true;
      }
    }
    return false;
  }

  // A field's number, and where its value ends; at() is where it begins.
  // False: no such field, or one of the obsolete groups.
  bool ReadField(uint64_t* tag, size_t* value_end) {
    if (!ReadVarint(kMaxShortVarintBytes, tag) ||
        *tag > std::numeric_limits<uint32_t>::max()) {
      return false;
    }
    uint64_t size = 0;
    switch (*tag & 7) {
      case WireFormatLite::WIRETYPE_VARINT: {
        const size_t begin = at_;
        if (!ReadVarint(kMaxVarintBytes, &size)) return false;
        *value_end = at_;
        at_ = begin;
        return true;
      }
      case WireFormatLite::WIRETYPE_FIXED64:
        size = 8;
        break;
      case WireFormatLite::WIRETYPE_FIXED32:
        size = 4;
        break;
      case WireFormatLite::WIRETYPE_LENGTH_DELIMITED:
        if (!ReadVarint(kMaxShortVarintBytes, &size)) return false;
        break;
      default:
        return false;
    }
    if (size > end_ - at_) return false;
    *value_end = at_ + static_cast<size_t>(size);
    return true;
  }

  void Skip(size_t to) { at_ = to; }

 private:
  const BytePieces& bytes_;
  size_t at_;
  const size_t end_;
};

void Append(const BytePieces& bytes, size_t begin, size_t end,
            std::string* to) {
  const size_t size = to->size();
  to->resize(size + (end - begin));
  bytes.CopyTo(begin, end - begin, to->data() + size);
}

}  // namespace

std::string EncodeBeforePayload(PayloadField field,
                                const google::protobuf::MessageLite& inner,
                                size_t payload_size) {
  uint8_t prefix[kMaxPrefixBytes];
  const auto payload_prefix = static_cast<size_t>(
      WritePrefix(field.payload, payload_size, prefix) - prefix);
  const std::string payload_head(reinterpret_cast<const char*>(prefix),
                                 payload_prefix);
  const size_t inner_size = inner.ByteSizeLong();
  const size_t total = inner_size + payload_prefix + payload_size;
  SY_CHECK(total < static_cast<size_t>(std::numeric_limits<int32_t>::max()));
  const auto outer_prefix =
      static_cast<size_t>(WritePrefix(field.inner, total, prefix) - prefix);
  std::string out(reinterpret_cast<const char*>(prefix), outer_prefix);
  SY_CHECK(inner.AppendToString(&out));
  out += payload_head;
  return out;
}

absl::optional<SplitMessage> SplitPayload(const BytePieces& message,
                                          PayloadField field) {
  FieldWalker outer(message, 0, message.size());
  uint64_t tag = 0;
  size_t inner_end = 0;
  if (outer.done() || !outer.ReadField(&tag, &inner_end) ||
      tag != LengthDelimitedTag(field.inner) || inner_end != message.size()) {
    return absl::nullopt;
  }
  SplitMessage split;
  bool has_payload = false;
  FieldWalker inner(message, outer.at(), inner_end);
  while (!inner.done()) {
    const size_t begin = inner.at();
    size_t end = 0;
    if (!inner.ReadField(&tag, &end)) return absl::nullopt;
    if (tag == LengthDelimitedTag(field.payload)) {
      if (has_payload) return absl::nullopt;
      has_payload = true;
      split.payload = message.Part(inner.at(), end - inner.at());
    } else {
      Append(message, begin, end, &split.inner);
    }
    inner.Skip(end);
  }
  return split;
}

}  // namespace switchyard::rpc
