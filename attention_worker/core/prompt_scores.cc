#include "attention_worker/core/prompt_scores.h"

#include <algorithm>
#include <vector>

#include "attention_worker/sampling/sampler.h"
#include "base/check.h"

namespace switchyard::attention_worker {

void GivePromptScores(LiveSequence* sequence, int64_t begin,
                      absl::Span<const float> logits, ComputePool* pool) {
  const int64_t first = sequence->next_prompt_score;
  const int64_t rows = sequence->state->num_tokens - begin;
  SY_CHECK(first > begin && rows >= 1 &&
           static_cast<int64_t>(logits.size()) % rows == 0);
  const int64_t vocab = static_cast<int64_t>(logits.size()) / rows;
  const int64_t end = std::min(begin + rows + 1, sequence->prompt_tokens());
  std::vector<GeneratedToken> tokens(
      static_cast<size_t>(std::max<int64_t>(end - first, 0)));
  pool->ParallelFor(
      static_cast<int64_t>(tokens.size()), 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; ++i) {
          GeneratedToken& token = tokens[static_cast<size_t>(i)];
          token.position = first + i;
          token.token = ScoreToken(
              logits.subspan((token.position - 1 - begin) * vocab, vocab),
              sequence->tokens[static_cast<size_t>(token.position)],
              sequence->request.num_top_logprobs);
        }
      });
  for (const GeneratedToken& token : tokens) {
    ++sequence->next_prompt_score;
    sequence->sink->OnToken(token);
  }
}

}  // namespace switchyard::attention_worker
