#include "grammar/free_text.h"

#include <array>
#include <cstdint>

#include "base/check.h"
#include "base/status_macros.h"

namespace switchyard::grammar {
namespace {

constexpr int32_t kNone = -1;

// Aho and Corasick's automaton: a state is the longest beginning of a marker
// that the text ends with.
class Markers {
 public:
  explicit Markers(Budget* budget) : budget_(budget) {}

  // `end`: which one of the ends it is, or kNone.
  absl::Status Add(const std::string& marker, int32_t end) {
    SY_CHECK(!marker.empty());
    int32_t at = 0;
    for (const char c : marker) {
      const auto byte = static_cast<uint8_t>(c);
      if (nodes_[at].next[byte] == kNone) {
        SY_RETURN_IF_ERROR(budget_->Spend(kNodeCost));
        const auto added = static_cast<int32_t>(nodes_.size());
        nodes_.emplace_back();
        nodes_[at].next[byte] = added;
      }
      at = nodes_[at].next[byte];
    }
    nodes_[at].complete = true;
    if (nodes_[at].end == kNone) nodes_[at].end = end;
    return absl::OkStatus();
  }

  // Breadth first: of what the text ends with besides, all is shorter, and done
  // before.
  void Link() {
    std::vector<int32_t> queue = {0};
    std::vector<int32_t> shorter(nodes_.size(), 0);
    for (size_t i = 0; i < queue.size(); ++i) {
      const int32_t at = queue[i];
      const Node& rest = nodes_[shorter[at]];
      if (!nodes_[at].complete) {
        nodes_[at].complete = rest.complete;
        nodes_[at].end = rest.end;
      }
      for (int byte = 0; byte < 256; ++byte) {
        int32_t& next = nodes_[at].next[byte];
        const int32_t otherwise = at == 0 ? 0 : rest.next[byte];
        if (next == kNone) {
          next = otherwise;
        } else {
          shorter[next] = otherwise;
          queue.push_back(next);
        }
      }
    }
  }

  // States are those of the text, then one for each end. No edge leads to where
  // any other marker is complete.
  Dfa Automaton(size_t num_ends) const {
    Dfa dfa;
    const auto first_end = static_cast<int32_t>(nodes_.size());
    dfa.states.resize(nodes_.size() + num_ends);
    for (size_t i = 0; i < nodes_.size(); ++i) {
      std::vector<Dfa::Edge>& edges = dfa.states[i].edges;
      for (int byte = 0; byte < 256; ++byte) {
        const int32_t next = nodes_[i].next[byte];
        const int32_t end = nodes_[next].end;
        if (nodes_[next].complete && end == kNone) continue;
        const int32_t target = end == kNone ? next : first_end + end;
        const auto at = static_cast<uint8_t>(byte);
        if (!edges.empty() && edges.back().target == target &&
            edges.back().high + 1 == at) {
          edges.back().high = at;
        } else {
          edges.push_back({at, at, target});
        }
      }
    }
    return dfa;
  }

  size_t size() const { return nodes_.size(); }

 private:
  static constexpr int64_t kNodeCost = 32;
  struct Node {
    Node() { next.fill(kNone); }
    std::array<int32_t, 256> next;
    bool complete = false;  // a marker is, here
    int32_t end = kNone;    // the longest one is this end
  };

  Budget* const budget_;
  std::vector<Node> nodes_ = std::vector<Node>(1);
};

}  // namespace

absl::StatusOr<Dfa> TextWithout(const std::vector<std::string>& markers,
                                Budget* budget) {
  Markers all(budget);
  for (const std::string& marker : markers) {
    SY_RETURN_IF_ERROR(all.Add(marker, kNone));
  }
  all.Link();
  Dfa dfa = all.Automaton(0);
  for (Dfa::State& state : dfa.states) state.accepting = true;
  return dfa;
}

absl::StatusOr<Dfa> TextUpTo(const std::vector<TextEnd>& ends,
                             const std::vector<std::string>& without,
                             Budget* budget) {
  Markers all(budget);
  for (size_t i = 0; i < ends.size(); ++i) {
    SY_RETURN_IF_ERROR(all.Add(ends[i].marker, static_cast<int32_t>(i)));
  }
  for (const std::string& marker : without) {
    SY_RETURN_IF_ERROR(all.Add(marker, kNone));
  }
  all.Link();
  Dfa dfa = all.Automaton(ends.size());
  const auto behind = static_cast<int32_t>(dfa.states.size());
  dfa.states.emplace_back();
  dfa.states.back().accepting = true;
  for (size_t i = 0; i < ends.size(); ++i) {
    Dfa::State& state = dfa.states[all.size() + i];
    if (ends[i].then < 0) {
      state.accepting = true;
    } else {
      state.calls.push_back({ends[i].then, behind});
    }
  }
  return dfa;
}

}  // namespace switchyard::grammar
