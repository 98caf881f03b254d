// Regular expressions in a text that grows: is there a match by now, and where
// could one still begin?
//
// Not here: what a grammar holds an output to (grammar/regex.h, an automaton),
// words for BPE (pre_tokenizer.h).

#ifndef SWITCHYARD_TEXT_REGEX_SEARCH_H_
#define SWITCHYARD_TEXT_REGEX_SEARCH_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard::text {

// An expression of PCRE2, whose classes know Unicode. Immutable, so
// thread-safe.
class Regex {
 public:
  static constexpr size_t kMaxBytes = 1024;

  // INVALID_ARGUMENT: longer than kMaxBytes, or it does not compile; the text
  // says where.
  static absl::StatusOr<std::shared_ptr<const Regex>> Compile(
      absl::string_view expression);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  const std::string& expression() const { return expression_; }

 private:
  friend class RegexSearch;
  struct Code;
  Regex(std::string expression, std::unique_ptr<Code> code);

  const std::string expression_;
  const std::unique_ptr<Code> code_;
};

// Looks for an expression in one text, after each of its characters: what is
// found is the leftmost match in the shortest beginning of the text that has
// one. So ends (`$`, `\b`, a lookahead) are those of the text so far, and `\d+`
// is found with its first digit. Empty matches don't count.
//
// Memory and work are bounded, whatever the expression: see kMaxOpenBytes and
// the budget in regex_search.cc. Not thread-safe.
class RegexSearch {
 public:
  // The beginning of a match may be as long as this.
  static constexpr size_t kMaxOpenBytes = 16 << 10;

  explicit RegexSearch(std::shared_ptr<const Regex> regex);
  ~RegexSearch();
  RegexSearch(RegexSearch&&) noexcept;

  // The text goes on with `character`: 1 to 4 bytes, valid UTF-8. Not after
  // found(), nor after an error.
  // INVALID_ARGUMENT: the search would take too much memory or time.
  absl::Status AddCharacter(absl::string_view character);

  bool found() const { return found_; }
  // The last bytes of the text: from the match's beginning on if found(), else
  // from the first place where a match could still begin.
  size_t open_bytes() const { return text_.size() - open_; }
  // The match, if found(). More may be open behind it: what a lookahead saw.
  absl::string_view match() const {
    return absl::string_view(text_).substr(open_, match_bytes_);
  }
  const Regex& regex() const { return *regex_; }

 private:
  struct Scratch;
  void DropUnneeded();
  absl::Status TooMuch(absl::string_view what) const;

  std::shared_ptr<const Regex> regex_;
  std::unique_ptr<Scratch> scratch_;
  std::string text_;  // its end: what is open, and before it what is looked at
  size_t open_ = 0;   // bytes into text_
  size_t match_bytes_ = 0;
  bool begin_dropped_ = false;  // text_ does not begin where the text began
  bool found_ = false;
  int64_t budget_;
};

}  // namespace switchyard::text

#endif  // SWITCHYARD_TEXT_REGEX_SEARCH_H_
