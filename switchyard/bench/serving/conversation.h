// A long conversation, and many prompts that begin alike: what is read again of
// what was read before.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_SERVING_CONVERSATION_H_
#define SWITCHYARD_SWITCHYARD_BENCH_SERVING_CONVERSATION_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "switchyard/bench/serving/serving_model.h"

namespace switchyard::bench {

struct ConversationOptions {
  int64_t first_tokens = 2048;  // of the first prompt
  int64_t turn_tokens = 64;     // that each later turn says
  int64_t answer_tokens = 16;
  int64_t turns = 10;
  int64_t repeat = 3;  // conversations, one after the other
  int64_t prefill_chunk = 1024;
};

struct ConversationTurn {
  int64_t prompt_tokens = 0;
  int64_t new_tokens = 0;       // nobody's words before: the turn's own
  int64_t cached_tokens = 0;    // as the engine reports them
  int64_t computed_tokens = 0;  // of the prompt, as the model counted them
  double ttft_seconds = 0;      // the median of all conversations'
};

struct ConversationResult {
  ConversationOptions options;
  std::vector<ConversationTurn> turns;  // tokens: the same in each conversation
  // Computed over new tokens, all turns but the first.
  double computed_per_new = 0;
  // The second turn's time to the first token over the first one's: the median
  // of the conversations' own.
  double second_turn_share = 0;
};

// Prompts of random tokens, read without drafts. A turn's prompt is all that
// was said before and `turn_tokens` more; ends of messages are given as the
// router gives them. INVALID_ARGUMENT: longer than the model's context.
absl::StatusOr<ConversationResult> MeasureConversation(
    ServingModel* model, const ConversationOptions& options);

struct PrefixOptions {
  int64_t prefix_tokens = 8192;
  int64_t suffix_tokens = 64;
  int64_t suffixes = 20;
  int64_t prefill_chunk = 1024;
};

struct PrefixResult {
  PrefixOptions options;
  // Whether the requests say where the prefix ends, as chats do.
  bool boundary = false;
  int64_t least_tokens = 0;     // the prefix once, and all suffixes
  int64_t computed_tokens = 0;  // of all prompts, as the model counted them
  int64_t cached_tokens = 0;    // as the engine reports them
  double cold_ttft_seconds = 0;
  double warm_ttft_seconds = 0;  // the median of all but the first two

  double ComputedShare() const {
    return static_cast<double>(computed_tokens) /
           static_cast<double>(least_tokens);
  }
};

// One prompt after the other, without drafts. Errors as MeasureConversation.
absl::StatusOr<PrefixResult> MeasurePrefix(ServingModel* model, bool boundary,
                                           const PrefixOptions& options);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_SERVING_CONVERSATION_H_
