// Which tokens may come next in one output that must follow a grammar.
//
// Reasoning is free: the grammar begins behind it. Below: grammar/matcher.h.

#ifndef SWITCHYARD_ATTENTION_WORKER_SAMPLING_OUTPUT_CONSTRAINT_H_
#define SWITCHYARD_ATTENTION_WORKER_SAMPLING_OUTPUT_CONSTRAINT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "grammar/compiled_grammar.h"
#include "grammar/matcher.h"

namespace switchyard::attention_worker {

// Line ends that a model may write between its thought and its answer.
inline constexpr int kNewlinesBehindThought = 2;

// Where an output's reasoning stands.
enum class OutputReasoning {
  kNone,
  kMaybe,   // if its first token begins it
  kOpened,  // the prompt has begun it
};

// A pure function of the output so far: with drafts and without, here and after
// a failover, the same. Not thread-safe.
class OutputConstraint {
 public:
  // `stop_ids` end the output where the grammar lets it end, and nowhere else,
  // reasoning included; ids outside the vocabulary do nothing.
  OutputConstraint(std::shared_ptr<const grammar::CompiledGrammar> grammar,
                   OutputReasoning reasoning, std::vector<int32_t> stop_ids);

  // The next token of the output. False, and nothing changes, if it is not
  // allowed.
  bool Take(int32_t id);

  // Nothing may follow, and there is no stop token that could say so.
  bool complete() const;

  // A bit for each token that Take() would take. False if there is none.
  // [mask_words()]
  bool FillMask(absl::Span<uint64_t> mask);
  int64_t mask_words() const { return matcher_.vocabulary().mask_words(); }

  // What is taken between these two is taken back. Not nested.
  void BeginTrial();
  void EndTrial();

 private:
  enum class Phase {
    kBegin,     // the first token says whether there is reasoning
    kThinking,  // up to the token that ends it
    kText,      // under the grammar
    kEnded,     // behind a stop token
  };

  bool IsStop(int32_t id) const;

  grammar::Matcher matcher_;
  const std::vector<int32_t> stop_ids_;
  Phase phase_;
  Phase phase_before_trial_ = Phase::kText;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_OUTPUT_CONSTRAINT_H_
