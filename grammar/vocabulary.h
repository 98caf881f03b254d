// A tokenizer's vocabulary as a tree of bytes: what masks are computed over.

#ifndef SWITCHYARD_GRAMMAR_VOCABULARY_H_
#define SWITCHYARD_GRAMMAR_VOCABULARY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "text/tokenizer.h"

namespace switchyard::grammar {

// Immutable, so thread-safe. Nodes are in the order of a depth-first walk: the
// nodes below `node` are node + 1 to end(node) - 1, and whoever has no interest
// in a branch goes on at its end. Node 0 is the root.
class Vocabulary {
 public:
  // Longer tokens are never allowed under a grammar.
  static constexpr int kMaxTokenBytes = 255;

  // Ids below `size` (that of a row of logits) are of interest. Special tokens
  // are not text, and not in the tree.
  static std::shared_ptr<const Vocabulary> Create(
      const text::Tokenizer& tokenizer, int64_t size);
  // tokens[id]: its bytes; empty: none.
  static std::shared_ptr<const Vocabulary> Create(
      const std::vector<std::string>& tokens,
      absl::optional<int32_t> think_begin = {},
      absl::optional<int32_t> think_end = {});

  int64_t size() const { return size_; }
  int64_t mask_words() const { return (size_ + 63) / 64; }

  int32_t num_nodes() const { return static_cast<int32_t>(bytes_.size()); }
  uint8_t byte(int32_t node) const { return bytes_[node]; }
  int depth(int32_t node) const { return depths_[node]; }
  int32_t end(int32_t node) const { return ends_[node]; }
  // The depth of the deepest node below, or its own.
  int deepest(int32_t node) const { return deepest_[node]; }
  // The tokens whose bytes lead here.
  absl::Span<const int32_t> tokens(int32_t node) const {
    return absl::MakeConstSpan(tokens_).subspan(
        first_token_[node], first_token_[node + 1] - first_token_[node]);
  }
  // "" for special tokens and ids that are none.
  absl::string_view bytes_of(int32_t id) const;

  // The tokens between which reasoning stands, if the vocabulary has them.
  absl::optional<int32_t> think_begin() const { return think_begin_; }
  absl::optional<int32_t> think_end() const { return think_end_; }

 private:
  Vocabulary() = default;

  int64_t size_ = 0;
  absl::optional<int32_t> think_begin_, think_end_;
  std::vector<uint8_t> bytes_, depths_, deepest_;
  std::vector<int32_t> ends_;
  std::vector<int32_t> first_token_;  // [num_nodes + 1]
  std::vector<int32_t> tokens_;
  std::string all_bytes_;             // of all tokens, one behind another
  std::vector<int64_t> begin_of_id_;  // [size + 1]
};

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_VOCABULARY_H_
