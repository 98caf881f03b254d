// Finds added tokens (<|im_start|>, <think> ...) in text: leftmost, longest.

#ifndef SWITCHYARD_TEXT_ADDED_TOKENS_H_
#define SWITCHYARD_TEXT_ADDED_TOKENS_H_

#include <array>
#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace switchyard::text {

// Movable. Thread-safe once the last token is added.
class AddedTokenMatcher {
 public:
  // `content` is not empty. The last id of two for one content counts.
  void Add(absl::string_view content, int32_t id);
  bool empty() const { return next_.empty(); }

  // Calls `plain` for each stretch without a token (never empty) and `token`
  // for each token, in order. Time is linear in the text, times the longest
  // token at worst.
  void Split(absl::string_view text,
             absl::FunctionRef<void(absl::string_view)> plain,
             absl::FunctionRef<void(int32_t)> token) const;

 private:
  struct Match {
    size_t length = 0;  // bytes; 0: none
    int32_t id = -1;
  };
  Match MatchAt(absl::string_view text) const;

  // A trie. Node 0 is the root; the key is the node and the byte that leads on.
  static uint64_t Edge(uint32_t node, uint8_t byte) {
    return uint64_t{node} << 8 | byte;
  }
  absl::flat_hash_map<uint64_t, uint32_t> next_;
  absl::flat_hash_map<uint32_t, int32_t> id_of_node_;
  uint32_t node_count_ = 1;
  std::array<bool, 256> begins_{};  // can a token begin with this byte?
};

}  // namespace switchyard::text

#endif  // SWITCHYARD_TEXT_ADDED_TOKENS_H_
