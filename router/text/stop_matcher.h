// Stop strings and stop expressions in a stream of text.

#ifndef SWITCHYARD_ROUTER_TEXT_STOP_MATCHER_H_
#define SWITCHYARD_ROUTER_TEXT_STOP_MATCHER_H_

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "text/regex_search.h"

namespace switchyard::router {

// Lets text through up to the first match of a stop string or of a regular
// expression (which is not let through), holding back only what may still
// become one. Of several, the one that is complete first counts, and the one
// that begins first of those that are complete at the same character; so the
// result doesn't depend on how the text was cut. Time is linear in the text,
// times the number of strings, but for expressions (text/regex_search.h). Not
// thread-safe.
class StopMatcher {
 public:
  using Expressions = std::vector<std::shared_ptr<const text::Regex>>;

  // Empty strings are ignored.
  explicit StopMatcher(std::vector<std::string> stop,
                       const Expressions& expressions = {});

  // The text that is certain now. `text` is valid UTF-8 and ends no character
  // in the middle. After stopped() it is always "".
  std::string Add(absl::string_view text);
  // What was held back, at the end of the stream.
  std::string Flush();
  bool stopped() const { return stopped_; }
  // Which string or expression matched; "" before stopped().
  const std::string& matched() const { return matched_; }
  // The text that it matched.
  const std::string& matched_text() const { return matched_text_; }
  // INVALID_ARGUMENT: an expression took too much time or memory. Nothing is
  // let through any more.
  const absl::Status& status() const { return status_; }

 private:
  // Knuth-Morris-Pratt: the longest proper beginning that the text ends with.
  struct Word {
    std::string text;
    // failure[n]: bytes of the longest proper border of the first n bytes.
    std::vector<size_t> failure;
    size_t matched = 0;  // bytes
  };
  static Word MakeWord(std::string text);
  static void Advance(Word* word, char byte);

  // Sees the next character, which held_ has at its end.
  void AddCharacter(absl::string_view character);
  // The last bytes of held_ are a match, unless a longer one was found.
  void Found(size_t open_bytes, const std::string& what,
             absl::string_view match);

  std::vector<Word> words_;
  std::vector<text::RegexSearch> searches_;
  std::string held_;
  std::string matched_;
  std::string matched_text_;
  size_t found_bytes_ = 0;  // held_'s last ones, from the match's begin
  absl::Status status_;
  bool stopped_ = false;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TEXT_STOP_MATCHER_H_
