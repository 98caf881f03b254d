// A kept prefix as one object (snapshot_file.h), read in parts as they come
// from a network.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_SNAPSHOT_DECODER_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_SNAPSHOT_DECODER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "attention_worker/state/prefix.h"
#include "attention_worker/state/snapshot_file.h"
#include "attention_worker/state/state_shape.h"
#include "model/sha256.h"

namespace switchyard::attention_worker {

// Keeps the tokens, and no more of the state than one call brings. Not
// thread-safe.
class SnapshotDecoder {
 public:
  // Takes objects of `identity`, whose layout is that of `shape`, with at most
  // `max_tokens` tokens.
  SnapshotDecoder(SnapshotIdentity identity, const StateShape& shape,
                  int64_t max_tokens);

  // The next bytes. What of them belongs to the state (the fixed part and the
  // pages) is appended to `state`. FAILED_PRECONDITION: another model or layout
  // (both are named). RESOURCE_EXHAUSTED: more tokens than `max_tokens`.
  // DATA_LOSS: no such object, a damaged one, or bytes behind its end. After an
  // error nothing more may be fed.
  absl::Status Feed(absl::string_view bytes, std::string* state);

  // All tokens are there, and nothing is wrong with them so far.
  bool has_tokens() const { return part_ > Part::kTokens; }
  // The whole object is there, and its checksum is right.
  bool done() const { return part_ == Part::kEnd; }
  // Borrows from this.
  Prefix prefix() const { return {scope_, tokens_}; }

 private:
  // In the order in which they come.
  enum class Part { kMagic, kJson, kTokens, kState, kHash, kEnd };

  // Of a whole part but kState; sets up the next.
  absl::Status TakePart();

  const SnapshotIdentity identity_;
  const StateShape shape_;
  const int64_t max_tokens_;
  Part part_ = Part::kMagic;
  int64_t left_;        // bytes of the part that are still to come
  std::string buffer_;  // the part, if it is not kState
  std::string magic_;
  std::string scope_;
  std::vector<int32_t> tokens_;
  model::Sha256 sha256_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_SNAPSHOT_DECODER_H_
