// Stop strings in a stream of text.

#ifndef SWITCHYARD_ROUTER_TEXT_STOP_MATCHER_H_
#define SWITCHYARD_ROUTER_TEXT_STOP_MATCHER_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace switchyard::router {

// Lets text through up to the first occurrence of a stop string (which is not
// let through), holding back only what may still become one. Of several, the
// one that is complete first counts, and the longest of those that end at the
// same byte; so the result doesn't depend on how the text was cut. Time is
// linear in the text, times the number of strings. Not thread-safe.
class StopMatcher {
 public:
  // Empty strings are ignored.
  explicit StopMatcher(std::vector<std::string> stop);

  // The text that is certain now. After stopped() it is always "".
  std::string Add(absl::string_view text);
  // What was held back, at the end of the stream.
  std::string Flush();
  bool stopped() const { return stopped_; }
  // Which string matched; "" before stopped().
  const std::string& matched() const { return matched_; }

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

  std::vector<Word> words_;
  std::string held_;
  std::string matched_;
  bool stopped_ = false;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TEXT_STOP_MATCHER_H_
