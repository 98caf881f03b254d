// A kept prefix as one object: its tokens and the state behind them, in a file
// that another worker of the same model can go on from.
//
// The file, little-endian:
//   8 bytes "SYSTATE1", or "SYSTATE2" if it is of a scope (prefix.h)
//   uint32 n, and n bytes of JSON: {"model": fingerprint, "layout": what a
//     state looks like (LayoutOf), "tokens": T}; in a "SYSTATE2" also "scope"
//   int32 [T] token ids
//   StateShape::FixedBytes() of the fixed part
//   PagesFor(T) pages of StateShape::PageBytes(). What a page has behind the T
//     tokens means nothing.
//   64 hex digits: SHA-256 of all before them
//
// Builds that know no scopes take a "SYSTATE2" for no state at all, and cannot
// give it to others.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_SNAPSHOT_FILE_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_SNAPSHOT_FILE_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "attention_worker/state/prefix.h"
#include "attention_worker/state/sequence_state.h"
#include "attention_worker/state/state_shape.h"
#include "model/sha256.h"

namespace switchyard::attention_worker {

// Whose states fit: those of the same model in the same layout.
struct SnapshotIdentity {
  std::string model;   // Checkpoint::fingerprint()
  std::string layout;  // LayoutOf(shape)

  friend bool operator==(const SnapshotIdentity&,
                         const SnapshotIdentity&) = default;
};
std::string LayoutOf(const StateShape& shape);

struct SnapshotHeader {
  SnapshotIdentity identity;
  std::string scope;
  int64_t num_tokens = 0;
};

// The parts of the format, for those who do not read or write files.
inline constexpr int64_t kSnapshotMagicBytes = 8;
inline constexpr int64_t kSnapshotHashBytes = 64;
inline constexpr uint32_t kMaxSnapshotJsonBytes = 64 << 10;
// All that stands before the fixed part.
std::string SnapshotPreamble(const SnapshotIdentity& identity,
                             const Prefix& prefix);
// Whether a file may begin like this; `magic` has kSnapshotMagicBytes.
bool IsSnapshotMagic(absl::string_view magic);
// The JSON behind `magic` in `what`, which messages name. DATA_LOSS: it is not
// as it must be. REQUIRES: IsSnapshotMagic(magic).
absl::StatusOr<SnapshotHeader> ParseSnapshotJson(absl::string_view what,
                                                 absl::string_view magic,
                                                 absl::string_view text);

// Writes beside `path` and moves it there when it is whole; what is abandoned
// leaves nothing. Not thread-safe.
class SnapshotWriter {
 public:
  // UNAVAILABLE: the file cannot be made (with errno's text).
  static absl::StatusOr<std::unique_ptr<SnapshotWriter>> Create(
      const std::string& path, const SnapshotIdentity& identity,
      const Prefix& prefix);
  ~SnapshotWriter();
  SnapshotWriter(const SnapshotWriter&) = delete;
  SnapshotWriter& operator=(const SnapshotWriter&) = delete;

  // The fixed part, then the pages. RESOURCE_EXHAUSTED: the disk is full.
  absl::Status Append(const void* data, int64_t bytes);
  // Returns the file's size.
  absl::StatusOr<int64_t> Finish();

 private:
  SnapshotWriter(std::string path, std::FILE* file)
      : path_(std::move(path)), file_(file) {}
  std::string partial() const { return path_ + ".partial"; }

  const std::string path_;
  std::FILE* file_;
  int64_t bytes_ = 0;
  model::Sha256 sha256_;
};

// Of the fixed part and the pages.
int64_t SnapshotStateBytes(const StateShape& shape, int64_t tokens);
// Size of the file of a prefix, without its JSON and what frames it.
int64_t SnapshotPayloadBytes(const StateShape& shape, int64_t tokens);

// The header alone. DATA_LOSS: this is no such file, or a cut one (its size is
// compared with what `shape` says if the layout is that shape's).
absl::StatusOr<SnapshotHeader> ReadSnapshotHeader(const std::string& path,
                                                  const StateShape& shape);

// The state, into blocks that `take_fixed` and `take_page` give.
// FAILED_PRECONDITION: it is of another model or layout (both are named), or of
// another prefix. DATA_LOSS: the file is cut or its checksum is another.
// RESOURCE_EXHAUSTED: a block was not to be had.
absl::StatusOr<StateSnapshot> ReadSnapshot(
    const std::string& path, const SnapshotIdentity& identity,
    const StateShape& shape, const Prefix& prefix,
    absl::FunctionRef<StateBlock()> take_fixed,
    absl::FunctionRef<StateBlock()> take_page);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_SNAPSHOT_FILE_H_
