#include "router/text/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace switchyard::router {

StopMatcher::StopMatcher(std::vector<std::string> stop) {
  for (std::string& text : stop) {
    if (!text.empty()) words_.push_back(MakeWord(std::move(text)));
  }
}

StopMatcher::Word StopMatcher::MakeWord(std::string text) {
  Word word;
  word.text = std::move(text);
  word.failure.assign(word.text.size() + 1, 0);
  size_t border = 0;
  for (size_t n = 1; n < word.text.size(); ++n) {
    while (border > 0 && word.text[n] != word.text[border]) {
      border = word.failure[border];
    }
    if (word.text[n] == word.text[border]) ++border;
    word.failure[n + 1] = border;
  }
  return word;
}

void StopMatcher::Advance(Word* word, char byte) {
  while (word->matched > 0 && word->text[word->matched] != byte) {
    word->matched = word->failure[word->matched];
  }
  if (word->text[word->matched] == byte) ++word->matched;
}

std::string StopMatcher::Add(absl::string_view text) {
  if (stopped_) return "";
  if (words_.empty()) return std::string(text);
  for (const char byte : text) {
    held_.push_back(byte);
    for (Word& word : words_) {
      Advance(&word, byte);
      if (word.matched == word.text.size() &&
          word.text.size() > matched_.size()) {
        matched_ = word.text;
      }
    }
    if (!matched_.empty()) {
      stopped_ = true;
      held_.resize(held_.size() - matched_.size());
      return std::exchange(held_, "");
    }
  }
  size_t open = 0;
  for (const Word& word : words_) open = std::max(open, word.matched);
  std::string certain = held_.substr(0, held_.size() - open);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopMatcher::Flush() { return std::exchange(held_, ""); }

}  // namespace switchyard::router
