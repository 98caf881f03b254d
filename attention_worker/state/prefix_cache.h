// Snapshots of sequence states by the tokens that led to them.
//
// A hybrid model can go on only from where somebody kept its recurrent state,
// so the cache holds few, well-chosen snapshots, not every page; pages are
// shared with the sequences and between snapshots. A radix tree (Morrison 1968)
// over token ids finds the longest one that is a prefix of a prompt, and where
// paths part: such a place, seen twice, deserves a snapshot. Each scope has a
// tree of its own (prefix.h); memory is one budget for all.
//
// When memory is short the least valuable snapshot goes first: GreedyDual-Size
// (Cao, Irani 1997), where a snapshot's cost is the tokens that would have to
// be read again from the next shorter one, and its size the bytes that nobody
// else holds.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_PREFIX_CACHE_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_PREFIX_CACHE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "attention_worker/state/prefix.h"
#include "attention_worker/state/sequence_state.h"

namespace switchyard::attention_worker {

// Owned by the step thread; not thread-safe.
class PrefixCache {
 public:
  // For blocks of `shape`.
  explicit PrefixCache(const StateShape& shape);
  ~PrefixCache();
  PrefixCache(const PrefixCache&) = delete;
  PrefixCache& operator=(const PrefixCache&) = delete;

  struct Match {
    // The snapshot of the longest kept prefix; num_tokens 0: none.
    StateSnapshot snapshot;
    // Tokens that the prompt has in common with some path; more than
    // snapshot.num_tokens where no snapshot was kept.
    int64_t common_tokens = 0;
  };
  // Counts as a use of the snapshot.
  Match Find(const Prefix& prefix);

  // True if a snapshot of just these tokens is kept.
  bool Contains(const Prefix& prefix) const;

  // Keeps `snapshot` of a prefix, of as many tokens as it has read. A second
  // one of the same prefix is dropped: its bits are the first one's.
  // REQUIRES: snapshot.num_tokens == prefix.size() >= 1, snapshot.fixed.
  void Insert(const Prefix& prefix, StateSnapshot snapshot);

  // Drops the least valuable snapshot. False if there is none. Its memory is
  // free unless a running sequence shares it.
  bool EvictOne();

  int64_t num_snapshots() const { return num_snapshots_; }
  int64_t num_evictions() const { return num_evictions_; }

 private:
  struct Node;

  // The deepest node of the scope whose whole path is a prefix of the tokens,
  // and how many more tokens match the beginning of one of its children. Null:
  // nothing is kept of the scope.
  struct Position {
    Node* node;
    int64_t beyond;
  };
  Position Walk(const Prefix& prefix) const;
  // Nodes for all of the prefix; the last one.
  Node* MakePath(const Prefix& prefix);
  // Cuts `child`'s label after `length` tokens; the new parent.
  static Node* Split(Node* child, int64_t length);
  void Refresh(Node* node);
  double ValueByByte(const Node& node) const;
  // Removes `node` and its ancestors as long as they lead nowhere and keep
  // nothing, the scope at last, and joins a node with its only child.
  void Prune(Node* node);

  const StateShape shape_;
  // By scope. Each has children, so there are no more than snapshots.
  absl::flat_hash_map<std::string, std::unique_ptr<Node>> roots_;
  // GreedyDual's inflation: the priority of what was evicted last.
  double inflation_ = 0;
  int64_t uses_ = 0;  // of equally valuable ones the longest unused goes first
  int64_t num_snapshots_ = 0;
  int64_t num_evictions_ = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_PREFIX_CACHE_H_
