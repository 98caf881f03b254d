// Tries the tokens of a vocabulary against runs of a grammar.

#ifndef SWITCHYARD_GRAMMAR_TOKEN_WALK_H_
#define SWITCHYARD_GRAMMAR_TOKEN_WALK_H_

#include <array>
#include <cstdint>

#include "absl/types/span.h"
#include "grammar/run_sets.h"
#include "grammar/vocabulary.h"

namespace switchyard::grammar {

struct WalkOptions {
  int max_depth = Vocabulary::kMaxTokenBytes;  // visits nodes up to here
  int min_depth = 0;                           // and from here on
};

// Calls visit(node, set) for each node below `root` whose bytes (from `root`
// on) some run of `start` takes. Depths are counted from the vocabulary's root.
// May make `runs` forget all sets but those of `pinned`: `start` must be among
// them to be valid afterwards.
template <typename Visit>
void WalkTokens(const Vocabulary& vocabulary, RunSets* runs,
                RunSets::SetId start, int32_t root, const WalkOptions& options,
                absl::Span<RunSets::SetId> pinned, Visit visit) {
  std::array<RunSets::SetId, Vocabulary::kMaxTokenBytes + 1> path;
  const int top = vocabulary.depth(root);
  path[top] = start;
  const int32_t end = vocabulary.end(root);
  for (int32_t node = root + 1; node < end;) {
    const int depth = vocabulary.depth(node);
    if (depth > options.max_depth ||
        vocabulary.deepest(node) < options.min_depth) {
      node = vocabulary.end(node);
      continue;
    }
    const RunSets::SetId set =
        runs->Next(path[depth - 1], vocabulary.byte(node));
    if (set < 0) {
      node = vocabulary.end(node);
      continue;
    }
    path[depth] = set;
    if (depth >= options.min_depth) visit(node, set);
    if (runs->crowded()) {
      runs->ForgetAllBut(absl::MakeSpan(path).subspan(top, depth - top + 1),
                         pinned);
    }
    ++node;
  }
}

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_TOKEN_WALK_H_
