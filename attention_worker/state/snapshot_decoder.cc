#include "attention_worker/state/snapshot_decoder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

constexpr char kWhat[] = "the state that was sent";

}  // namespace

SnapshotDecoder::SnapshotDecoder(SnapshotIdentity identity,
                                 const StateShape& shape, int64_t max_tokens)
    : identity_(std::move(identity)),
      shape_(shape),
      max_tokens_(max_tokens),
      left_(kSnapshotMagicBytes + static_cast<int64_t>(sizeof(uint32_t))) {}

absl::Status SnapshotDecoder::Feed(absl::string_view bytes,
                                   std::string* state) {
  while (!bytes.empty()) {
    if (part_ == Part::kEnd) {
      return absl::DataLossError(
          absl::StrCat(kWhat, " goes on behind its end"));
    }
    const size_t size = static_cast<size_t>(
        std::min(left_, static_cast<int64_t>(bytes.size())));
    const absl::string_view now = bytes.substr(0, size);
    bytes.remove_prefix(size);
    left_ -= static_cast<int64_t>(size);
    if (part_ != Part::kHash) sha256_.Update(now);
    (part_ == Part::kState ? *state : buffer_).append(now.data(), now.size());
    if (left_ == 0) SY_RETURN_IF_ERROR(TakePart());
  }
  return absl::OkStatus();
}

absl::Status SnapshotDecoder::TakePart() {
  const std::string part = std::exchange(buffer_, "");
  switch (part_) {
    case Part::kMagic: {
      uint32_t size = 0;
      std::memcpy(&size, part.data() + kSnapshotMagicBytes, sizeof size);
      magic_ = part.substr(0, kSnapshotMagicBytes);
      if (!IsSnapshotMagic(magic_) || size == 0 ||
          size > kMaxSnapshotJsonBytes) {
        return absl::DataLossError(absl::StrCat(kWhat, " is none"));
      }
      part_ = Part::kJson;
      left_ = size;
      return absl::OkStatus();
    }
    case Part::kJson: {
      SY_ASSIGN_OR_RETURN(const SnapshotHeader header,
                          ParseSnapshotJson(kWhat, magic_, part));
      if (header.identity != identity_) {
        return absl::FailedPreconditionError(absl::StrCat(
            kWhat, " is of model ", header.identity.model, ", layout \"",
            header.identity.layout, "\"; this worker has model ",
            identity_.model, ", layout \"", identity_.layout, "\""));
      }
      if (header.num_tokens > max_tokens_) {
        return absl::ResourceExhaustedError(absl::StrCat(
            kWhat, " has ", header.num_tokens,
            " tokens; this worker's sequences have at most ", max_tokens_));
      }
      scope_ = header.scope;
      tokens_.resize(static_cast<size_t>(header.num_tokens));
      part_ = Part::kTokens;
      left_ = header.num_tokens * static_cast<int64_t>(sizeof(int32_t));
      return absl::OkStatus();
    }
    case Part::kTokens:
      std::memcpy(tokens_.data(), part.data(), part.size());
      part_ = Part::kState;
      left_ = SnapshotStateBytes(shape_, static_cast<int64_t>(tokens_.size()));
      return absl::OkStatus();
    case Part::kState:
      part_ = Part::kHash;
      left_ = kSnapshotHashBytes;
      return absl::OkStatus();
    case Part::kHash:
      if (part != sha256_.FinishHex()) {
        return absl::DataLossError(
            absl::StrCat(kWhat, " is damaged: its checksum is another"));
      }
      part_ = Part::kEnd;
      return absl::OkStatus();
    case Part::kEnd:
      break;
  }
  return absl::OkStatus();
}

}  // namespace switchyard::attention_worker
