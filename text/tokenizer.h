// Byte-level BPE exactly as Hugging Face tokenizers does it for the Qwen
// family.

#ifndef SWITCHYARD_TEXT_TOKENIZER_H_
#define SWITCHYARD_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"

namespace switchyard::text {

// Immutable after Load, so thread-safe.
class Tokenizer {
 public:
  // tokenizer.json if there is one, else vocab.json + merges.txt; added tokens
  // also from tokenizer_config.json's added_tokens_decoder. NOT_FOUND: neither
  // is there. INVALID_ARGUMENT: not this kind of tokenizer, or contradictory;
  // names the file and the place.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(
      const std::string& directory);
  virtual ~Tokenizer() = default;

  // Added tokens are found anywhere in the text; no BOS. Invalid UTF-8 is
  // replaced by U+FFFD first. Time is near linear in text.size().
  virtual std::vector<int32_t> Encode(absl::string_view text) const = 0;

  // UTF-8, invalid sequences replaced by U+FFFD (one per maximal invalid
  // subpart); ids without a token give nothing.
  virtual std::string Decode(absl::Span<const int32_t> ids,
                             bool skip_special_tokens) const = 0;

  // The raw bytes of one token; "" for ids without a token.
  virtual absl::string_view TokenBytes(int32_t id) const = 0;

  // True for added tokens with special = true.
  virtual bool IsSpecial(int32_t id) const = 0;

  // The id of an added token, by its text.
  virtual absl::optional<int32_t> AddedTokenId(
      absl::string_view text) const = 0;

  // One more than the largest id.
  virtual int64_t vocab_size() const = 0;
};

// Turns ids into text one at a time: never half a character, and in the end the
// same text as Decode() of all. Not thread-safe; borrows the tokenizer.
class IncrementalDetokenizer {
 public:
  IncrementalDetokenizer(const Tokenizer* tokenizer, bool skip_special_tokens)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  // The text that is now certain: complete characters only.
  std::string Add(int32_t id);
  // What is held back, as U+FFFD.
  std::string Flush();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_tokens_;
  std::string pending_;  // at most 3 bytes: an incomplete but valid beginning
};

}  // namespace switchyard::text

#endif  // SWITCHYARD_TEXT_TOKENIZER_H_
