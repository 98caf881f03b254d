// What a request says about single tokens: biases, tokens that alone are
// allowed, a least length, and a budget of reasoning. Pure functions of the
// output so far: with drafts and without, here and after a failover, the same
// token is chosen.

#ifndef SWITCHYARD_ATTENTION_WORKER_SAMPLING_TOKEN_RULES_H_
#define SWITCHYARD_ATTENTION_WORKER_SAMPLING_TOKEN_RULES_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/optional.h"
#include "absl/types/span.h"

namespace switchyard::attention_worker {

// After `tokens` tokens of reasoning the output goes on with `closing`, token
// by token, whatever the model says, and then freely. Nothing is forced if the
// reasoning has ended by itself before.
struct ThinkingBudget {
  int64_t tokens = 0;
  // The output reasons only if its first token is this one, which does not
  // count; -1: the prompt has begun the reasoning.
  int32_t begin_id = -1;
  int32_t end_id = -1;  // the reasoning's last token
  std::vector<int32_t> closing = {};
};

struct TokenRules {
  // Added to these logits, after the penalties. Ids are unique.
  std::vector<std::pair<int32_t, float>> logit_bias = {};
  // All others cannot be chosen; empty: all may be.
  std::vector<int32_t> allowed_ids = {};
  // None of `late_ids` is among the first so many tokens of the output.
  int64_t min_tokens = 0;
  std::vector<int32_t> late_ids = {};
  absl::optional<ThinkingBudget> thinking = {};
};

// What the rules look at of an output. Copied where drafts may be wrong.
struct RuleProgress {
  // The reasoning ended before its budget did, or never began.
  bool thinking_over = false;
};

// Token `id` is the output's `index`-th, from 0.
void Observe(const TokenRules& rules, int64_t index, int32_t id,
             RuleProgress* progress);

// The only token that the rules let through, if they force one.
absl::optional<int32_t> ForcedToken(const TokenRules& rules,
                                    const RuleProgress& progress,
                                    int64_t index);

// Whether ApplyRules would change the logits of the `index`-th token.
bool ChangesLogits(const TokenRules& rules, int64_t index);

// What cannot be chosen becomes -infinity. Each sum is made in double and
// rounded once.
void ApplyRules(const TokenRules& rules, int64_t index,
                absl::Span<float> logits);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_TOKEN_RULES_H_
