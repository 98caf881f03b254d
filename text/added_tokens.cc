#include "text/added_tokens.h"

#include "base/check.h"

namespace switchyard::text {

void AddedTokenMatcher::Add(absl::string_view content, int32_t id) {
  SY_CHECK(!content.empty());
  begins_[static_cast<uint8_t>(content[0])] = true;
  uint32_t node = 0;
  for (const char c : content) {
    const auto [edge, inserted] =
        next_.try_emplace(Edge(node, static_cast<uint8_t>(c)), node_count_);
    if (inserted) ++node_count_;
    node = edge->second;
  }
  id_of_node_[node] = id;
}

AddedTokenMatcher::Match AddedTokenMatcher::MatchAt(
    absl::string_view text) const {
  Match longest;
  uint32_t node = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto edge = next_.find(Edge(node, static_cast<uint8_t>(text[i])));
    if (edge == next_.end()) break;
    node = edge->second;
    const auto id = id_of_node_.find(node);
    if (id != id_of_node_.end()) longest = {i + 1, id->second};
  }
  return longest;
}

void AddedTokenMatcher::Split(absl::string_view text,
                              absl::FunctionRef<void(absl::string_view)> plain,
                              absl::FunctionRef<void(int32_t)> token) const {
  size_t plain_begin = 0;
  size_t i = 0;
  while (i < text.size()) {
    if (!begins_[static_cast<uint8_t>(text[i])]) {
      ++i;
      continue;
    }
    const Match match = MatchAt(text.substr(i));
    if (match.length == 0) {
      ++i;
      continue;
    }
    if (i > plain_begin) plain(text.substr(plain_begin, i - plain_begin));
    token(match.id);
    i += match.length;
    plain_begin = i;
  }
  if (plain_begin < text.size()) plain(text.substr(plain_begin));
}

}  // namespace switchyard::text
