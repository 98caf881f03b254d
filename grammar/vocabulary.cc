#include "grammar/vocabulary.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"

namespace switchyard::grammar {

std::shared_ptr<const Vocabulary> Vocabulary::Create(
    const text::Tokenizer& tokenizer, int64_t size) {
  std::vector<std::string> tokens(static_cast<size_t>(size));
  const int64_t known = std::min(size, tokenizer.vocab_size());
  for (int32_t id = 0; id < known; ++id) {
    if (tokenizer.IsSpecial(id)) continue;
    const absl::string_view bytes = tokenizer.TokenBytes(id);
    tokens[id].assign(bytes.data(), bytes.size());
  }
  return Create(tokens, tokenizer.AddedTokenId("<think>"),
                tokenizer.AddedTokenId("</think>"));
}

std::shared_ptr<const Vocabulary> Vocabulary::Create(
    const std::vector<std::string>& tokens, absl::optional<int32_t> think_begin,
    absl::optional<int32_t> think_end) {
  auto out = std::shared_ptr<Vocabulary>(new Vocabulary);
  out->think_begin_ = think_begin;
  out->think_end_ = think_end;
  out->size_ = static_cast<int64_t>(tokens.size());
  for (const std::string& token : tokens) {
    out->begin_of_id_.push_back(static_cast<int64_t>(out->all_bytes_.size()));
    out->all_bytes_ += token;
  }
  out->begin_of_id_.push_back(static_cast<int64_t>(out->all_bytes_.size()));
  std::vector<int32_t> order;
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].empty() && tokens[id].size() <= kMaxTokenBytes) {
      order.push_back(static_cast<int32_t>(id));
    }
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return tokens[a] < tokens[b]; });
  std::vector<int32_t> path;  // the nodes that lead to the last token
  const auto push = [&](uint8_t byte) {
    path.push_back(out->num_nodes());
    out->bytes_.push_back(byte);
    out->depths_.push_back(static_cast<uint8_t>(path.size() - 1));
    out->deepest_.push_back(out->depths_.back());
    out->ends_.push_back(0);
    out->first_token_.push_back(static_cast<int32_t>(out->tokens_.size()));
  };
  const auto pop_to = [&](size_t length) {
    while (path.size() > length) {
      const int32_t node = path.back();
      path.pop_back();
      out->ends_[node] = out->num_nodes();
      if (!path.empty()) {
        uint8_t& deepest = out->deepest_[path.back()];
        deepest = std::max(deepest, out->deepest_[node]);
      }
    }
  };
  push(0);
  absl::string_view last;
  for (const int32_t id : order) {
    const absl::string_view token = tokens[id];
    size_t common = 0;
    while (common < last.size() && common < token.size() &&
           last[common] == token[common]) {
      ++common;
    }
    pop_to(common + 1);
    for (size_t i = common; i < token.size(); ++i) {
      push(static_cast<uint8_t>(token[i]));
    }
    out->tokens_.push_back(id);
    last = token;
  }
  pop_to(0);
  out->first_token_.push_back(static_cast<int32_t>(out->tokens_.size()));
  return out;
}

absl::string_view Vocabulary::bytes_of(int32_t id) const {
  if (id < 0 || id >= size_) return "";
  return absl::string_view(all_bytes_)
      .substr(begin_of_id_[id], begin_of_id_[id + 1] - begin_of_id_[id]);
}

}  // namespace switchyard::grammar
