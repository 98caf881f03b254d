// One text under a grammar: what may come next, and taking what came.
//
// Above: the attention worker's constraint of a sequence.
// Below: compiled_grammar.h, shared by everybody who has the same grammar.

#ifndef SWITCHYARD_GRAMMAR_MATCHER_H_
#define SWITCHYARD_GRAMMAR_MATCHER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "grammar/compiled_grammar.h"
#include "grammar/run_sets.h"

namespace switchyard::grammar {

// A value: a copy goes on from the same place, and shares only what is
// thread-safe. (It may be megabytes.)
class Matcher {
 public:
  explicit Matcher(std::shared_ptr<const CompiledGrammar> grammar);

  // Takes the bytes; false, and nothing is taken, if they cannot come next.
  bool Accept(absl::string_view bytes);
  // Of the vocabulary; false for ids without text.
  bool AcceptToken(int32_t id);

  // What is accepted between these two is taken back by the second one. Not
  // nested.
  void BeginTrial();
  void EndTrial();

  // The text may be over here.
  bool can_end() const { return can_end_; }
  // The text must be over here: no byte can follow.
  bool must_end() const;

  // Sets the bit of each token of the vocabulary that AcceptToken would take,
  // and clears all others. [vocabulary().mask_words()]
  void FillMask(absl::Span<uint64_t> mask);

  const Vocabulary& vocabulary() const { return grammar_->vocabulary(); }

 private:
  void ForgetIfCrowded();
  // Of one stack of the present set.
  void AllowFrom(RunSets::StackId stack, absl::Span<uint64_t> mask);
  // What the runs of pins_[kStart] allow.
  void AllowBelow(int32_t node, int min_depth, absl::Span<uint64_t> mask);

  std::shared_ptr<const CompiledGrammar> grammar_;
  RunSets runs_;
  // Sets that must not be forgotten.
  enum Pin { kAt, kTrial, kStart, kBelow, kNumPins };
  std::array<RunSets::SetId, kNumPins> pins_;
  bool can_end_ = false;
  bool could_end_ = false;  // when the trial began
  // The last mask, which is often the next one too.
  RunSets::SetId mask_of_ = RunSets::kDead;
  std::vector<uint64_t> mask_;
};

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_MATCHER_H_
