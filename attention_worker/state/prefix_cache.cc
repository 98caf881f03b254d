#include "attention_worker/state/prefix_cache.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

int64_t CommonPrefix(absl::Span<const int32_t> a, absl::Span<const int32_t> b) {
  const size_t n = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin();
}

}  // namespace

struct PrefixCache::Node {
  Node* parent = nullptr;
  std::vector<int32_t> label;  // tokens between the parent and here
  int64_t depth = 0;           // tokens from the root to here
  absl::flat_hash_map<int32_t, std::unique_ptr<Node>> children;  // by first
  StateSnapshot snapshot;  // `fixed` null: none
  double priority = 0;
  int64_t last_use = 0;

  bool keeps() const { return snapshot.fixed != nullptr; }
};

PrefixCache::PrefixCache(const StateShape& shape) : shape_(shape) {}

PrefixCache::~PrefixCache() {
  // Paths may be as deep as a conversation has turns: no recursion.
  std::vector<std::unique_ptr<Node>> left;
  for (auto& [scope, root] : roots_) left.push_back(std::move(root));
  while (!left.empty()) {
    const std::unique_ptr<Node> node = std::move(left.back());
    left.pop_back();
    for (auto& [token, child] : node->children) {
      left.push_back(std::move(child));
    }
  }
}

PrefixCache::Position PrefixCache::Walk(const Prefix& prefix) const {
  const auto root = roots_.find(prefix.scope);
  if (root == roots_.end()) return {nullptr, 0};
  Node* node = root->second.get();
  absl::Span<const int32_t> tokens = prefix.tokens;
  while (!tokens.empty()) {
    const auto child = node->children.find(tokens.front());
    if (child == node->children.end()) break;
    const int64_t common = CommonPrefix(child->second->label, tokens);
    if (common < static_cast<int64_t>(child->second->label.size())) {
      return {node, common};
    }
    node = child->second.get();
    tokens.remove_prefix(common);
  }
  return {node, 0};
}

PrefixCache::Match PrefixCache::Find(const Prefix& prefix) {
  const Position position = Walk(prefix);
  Match match;
  if (position.node == nullptr) return match;
  match.common_tokens = position.node->depth + position.beyond;
  for (Node* node = position.node; node != nullptr; node = node->parent) {
    if (!node->keeps()) continue;
    Refresh(node);
    match.snapshot = node->snapshot;
    break;
  }
  return match;
}

bool PrefixCache::Contains(const Prefix& prefix) const {
  const Position position = Walk(prefix);
  return position.node != nullptr && position.node->depth == prefix.size() &&
         position.node->keeps();
}

void PrefixCache::Insert(const Prefix& prefix, StateSnapshot snapshot) {
  SY_CHECK(snapshot.fixed != nullptr && !prefix.tokens.empty());
  SY_CHECK(snapshot.num_tokens == prefix.size());
  Node* const node = MakePath(prefix);
  if (!node->keeps()) {
    node->snapshot = std::move(snapshot);
    ++num_snapshots_;
  }
  Refresh(node);
}

PrefixCache::Node* PrefixCache::MakePath(const Prefix& prefix) {
  std::unique_ptr<Node>& root = roots_[prefix.scope];
  if (root == nullptr) root = std::make_unique<Node>();
  const Position position = Walk(prefix);
  Node* node = position.node;
  absl::Span<const int32_t> tokens = prefix.tokens;
  tokens.remove_prefix(static_cast<size_t>(node->depth));
  if (position.beyond > 0) {
    node = Split(node->children.at(tokens.front()).get(), position.beyond);
    tokens.remove_prefix(position.beyond);
  }
  if (tokens.empty()) return node;
  auto leaf = std::make_unique<Node>();
  leaf->parent = node;
  leaf->label.assign(tokens.begin(), tokens.end());
  leaf->depth = node->depth + static_cast<int64_t>(tokens.size());
  Node* const result = leaf.get();
  node->children.emplace(tokens.front(), std::move(leaf));
  return result;
}

PrefixCache::Node* PrefixCache::Split(Node* child, int64_t length) {
  auto upper = std::make_unique<Node>();
  Node* const result = upper.get();
  upper->parent = child->parent;
  upper->label.assign(child->label.begin(), child->label.begin() + length);
  upper->depth = child->parent->depth + length;
  std::unique_ptr<Node>& place = child->parent->children.at(upper->label[0]);
  child->label.erase(child->label.begin(), child->label.begin() + length);
  child->parent = result;
  upper->children.emplace(child->label[0], std::move(place));
  place = std::move(upper);
  return result;
}

void PrefixCache::Refresh(Node* node) {
  node->priority = inflation_ + ValueByByte(*node);
  node->last_use = ++uses_;
}

double PrefixCache::ValueByByte(const Node& node) const {
  int64_t from = 0;
  for (const Node* up = node.parent; up != nullptr; up = up->parent) {
    if (!up->keeps()) continue;
    from = up->depth;
    break;
  }
  int64_t bytes = shape_.FixedBytes();
  for (const StateBlock& page : node.snapshot.pages) {
    if (page.use_count() == 1) bytes += shape_.PageBytes();
  }
  return static_cast<double>(node.depth - from) / static_cast<double>(bytes);
}

bool PrefixCache::EvictOne() {
  if (num_snapshots_ == 0) return false;
  Node* least = nullptr;
  std::vector<Node*> left;
  for (const auto& [scope, root] : roots_) left.push_back(root.get());
  while (!left.empty()) {
    Node* const node = left.back();
    left.pop_back();
    if (node->keeps() &&
        (least == nullptr || std::tie(node->priority, node->last_use) <
                                 std::tie(least->priority, least->last_use))) {
      least = node;
    }
    for (auto& [token, child] : node->children) left.push_back(child.get());
  }
  SY_CHECK(least != nullptr);
  inflation_ = std::max(inflation_, least->priority);
  least->snapshot = {};
  --num_snapshots_;
  ++num_evictions_;
  Prune(least);
  return true;
}

void PrefixCache::Prune(Node* node) {
  while (node->parent != nullptr && !node->keeps() && node->children.empty()) {
    Node* const parent = node->parent;
    parent->children.erase(node->label[0]);
    node = parent;
  }
  if (node->parent == nullptr && node->children.empty()) {
    absl::erase_if(roots_, [node](const auto& entry) {
      return entry.second.get() == node;
    });
    return;
  }
  if (node->parent == nullptr || node->keeps() || node->children.size() != 1) {
    return;
  }
  const std::unique_ptr<Node> child = std::move(node->children.begin()->second);
  node->label.insert(node->label.end(), child->label.begin(),
                     child->label.end());
  node->depth = child->depth;
  node->snapshot = std::move(child->snapshot);
  node->priority = child->priority;
  node->last_use = child->last_use;
  node->children = std::move(child->children);
  for (auto& [token, grandchild] : node->children) grandchild->parent = node;
}

}  // namespace switchyard::attention_worker
