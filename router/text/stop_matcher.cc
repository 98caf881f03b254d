#include "router/text/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "text/utf8.h"

namespace switchyard::router {

StopMatcher::StopMatcher(std::vector<std::string> stop,
                         const Expressions& expressions) {
  for (std::string& text : stop) {
    if (!text.empty()) words_.push_back(MakeWord(std::move(text)));
  }
  for (const auto& expression : expressions) searches_.emplace_back(expression);
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
  if (stopped_ || !status_.ok()) return "";
  if (words_.empty() && searches_.empty()) return std::string(text);
  while (!text.empty()) {
    const size_t length = static_cast<size_t>(text::DecodeUtf8(text).length);
    held_.append(text.data(), length);
    AddCharacter(text.substr(0, length));
    if (!status_.ok()) return "";
    if (stopped_) {
      held_.resize(held_.size() - found_bytes_);
      return std::exchange(held_, "");
    }
    text.remove_prefix(length);
  }
  size_t open = 0;
  for (const Word& word : words_) open = std::max(open, word.matched);
  for (const auto& search : searches_) {
    open = std::max(open, search.open_bytes());
  }
  std::string certain = held_.substr(0, held_.size() - open);
  held_.erase(0, certain.size());
  return certain;
}

void StopMatcher::AddCharacter(absl::string_view character) {
  for (Word& word : words_) {
    for (const char byte : character) Advance(&word, byte);
    if (word.matched == word.text.size()) {
      Found(word.text.size(), word.text, word.text);
    }
  }
  for (text::RegexSearch& search : searches_) {
    const absl::Status searched = search.AddCharacter(character);
    if (!searched.ok()) {
      status_ = absl::InvalidArgumentError(
          absl::StrCat("stop_regex: ", std::string(searched.message())));
      return;
    }
    if (search.found()) {
      Found(search.open_bytes(), search.regex().expression(), search.match());
    }
  }
}

void StopMatcher::Found(size_t open_bytes, const std::string& what,
                        absl::string_view match) {
  if (stopped_ && open_bytes <= found_bytes_) return;
  stopped_ = true;
  found_bytes_ = open_bytes;
  matched_ = what;
  matched_text_ = std::string(match);
}

std::string StopMatcher::Flush() {
  if (!status_.ok()) return "";
  return std::exchange(held_, "");
}

}  // namespace switchyard::router
