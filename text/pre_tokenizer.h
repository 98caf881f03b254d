// Cuts text into the words that BPE works on. No merges and no ids here.

#ifndef SWITCHYARD_TEXT_PRE_TOKENIZER_H_
#define SWITCHYARD_TEXT_PRE_TOKENIZER_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::text {

// The expression of every Qwen2 and Qwen3 tokenizer.
extern const absl::string_view kQwenExpression;

// Immutable, so thread-safe.
class PreTokenizer {
 public:
  // kQwenExpression gets a scanner of its own with current Unicode data, any
  // other expression goes to PCRE2 (docs/decisions/0030-pre-tokenizer.md).
  // INVALID_ARGUMENT, with the place in the expression, when it does not
  // compile.
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Create(
      absl::string_view expression);
  // Always PCRE2; for tests that compare the two.
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> CreateWithPcre2(
      absl::string_view expression);

  virtual ~PreTokenizer() = default;

  // `text` is valid UTF-8. Calls `word` with each piece in order; together they
  // are the text. Adds the characters looked at to `*steps` (scanner only; for
  // PCRE2, the words).
  virtual void Split(absl::string_view text,
                     absl::FunctionRef<void(absl::string_view)> word,
                     int64_t* steps) const = 0;
};

}  // namespace switchyard::text

#endif  // SWITCHYARD_TEXT_PRE_TOKENIZER_H_
