#include "attention_worker/sampling/token_rules.h"

#include <algorithm>
#include <limits>

#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Of the output, the first token that is forced.
int64_t FirstForced(const ThinkingBudget& budget) {
  return budget.tokens + (budget.begin_id >= 0 ? 1 : 0);
}

float& At(absl::Span<float> logits, int32_t id) {
  SY_DCHECK(id >= 0 && static_cast<size_t>(id) < logits.size());
  return logits[static_cast<size_t>(id)];
}

}  // namespace

void Observe(const TokenRules& rules, int64_t index, int32_t id,
             RuleProgress* progress) {
  if (!rules.thinking) return;
  const ThinkingBudget& budget = *rules.thinking;
  if (index >= FirstForced(budget)) return;
  if (id == budget.end_id ||
      (index == 0 && budget.begin_id >= 0 && id != budget.begin_id)) {
    progress->thinking_over = true;
  }
}

absl::optional<int32_t> ForcedToken(const TokenRules& rules,
                                    const RuleProgress& progress,
                                    int64_t index) {
  if (!rules.thinking || progress.thinking_over) return absl::nullopt;
  const int64_t at = index - FirstForced(*rules.thinking);
  const auto& closing = rules.thinking->closing;
  if (at < 0 || at >= static_cast<int64_t>(closing.size())) {
    return absl::nullopt;
  }
  return closing[static_cast<size_t>(at)];
}

bool ChangesLogits(const TokenRules& rules, int64_t index) {
  return !rules.logit_bias.empty() || !rules.allowed_ids.empty() ||
         index < rules.min_tokens;
}

void ApplyRules(const TokenRules& rules, int64_t index,
                absl::Span<float> logits) {
  for (const auto& [id, bias] : rules.logit_bias) {
    float& logit = At(logits, id);
    logit = static_cast<float>(static_cast<double>(logit) + bias);
  }
  if (!rules.allowed_ids.empty()) {
    std::vector<float> kept;
    kept.reserve(rules.allowed_ids.size());
    for (const int32_t id : rules.allowed_ids) kept.push_back(At(logits, id));
    std::fill(logits.begin(), logits.end(), kNever);
    for (size_t i = 0; i < kept.size(); ++i) {
      At(logits, rules.allowed_ids[i]) = kept[i];
    }
  }
  if (index < rules.min_tokens) {
    for (const int32_t id : rules.late_ids) At(logits, id) = kNever;
  }
}

}  // namespace switchyard::attention_worker
