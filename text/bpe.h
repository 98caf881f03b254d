// Byte-pair merges of one word. No text normalisation and no added tokens here.

#ifndef SWITCHYARD_TEXT_BPE_H_
#define SWITCHYARD_TEXT_BPE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace switchyard::text {

// Immutable once filled, so thread-safe.
class BpeMerges {
 public:
  // The token of a single byte. All 256 must be set.
  void SetByteToken(uint8_t byte, int32_t id) { byte_ids_[byte] = id; }
  // Merges of lower rank are done first. False if the pair has a merge already.
  bool AddMerge(int32_t left, int32_t right, int32_t merged, int32_t rank);
  void Reserve(size_t merges) { merges_.reserve(merges); }

  // Appends the ids of `word` (bytes, not empty). n log n for any word. Adds
  // the pairs looked at to `*steps`.
  void Encode(absl::string_view word, std::vector<int32_t>* ids,
              int64_t* steps) const;

 private:
  struct Merge {
    int32_t rank;
    int32_t merged;
  };
  static uint64_t Pair(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 |
           static_cast<uint32_t>(right);
  }
  const Merge* Find(int32_t left, int32_t right) const {
    const auto found = merges_.find(Pair(left, right));
    return found == merges_.end() ? nullptr : &found->second;
  }
  void EncodeShort(absl::string_view word, std::vector<int32_t>* ids,
                   int64_t* steps) const;
  void EncodeLong(absl::string_view word, std::vector<int32_t>* ids,
                  int64_t* steps) const;

  std::array<int32_t, 256> byte_ids_{};
  absl::flat_hash_map<uint64_t, Merge> merges_;
};

}  // namespace switchyard::text

#endif  // SWITCHYARD_TEXT_BPE_H_
