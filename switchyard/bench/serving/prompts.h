// What a benchmark's requests say.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_SERVING_PROMPTS_H_
#define SWITCHYARD_SWITCHYARD_BENCH_SERVING_PROMPTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard::bench {

// `tokens` ids in [0, vocab_size), the same for the same seed.
std::vector<int32_t> RandomPrompt(int64_t tokens, int64_t vocab_size,
                                  uint64_t seed);

// The prompts of a model's own questions: `model_dir`/eval.jsonl, lines of
// {"messages", "tools", "enable_thinking"}, as the chat format renders them.
// Empty: there is no such file. INVALID_ARGUMENT names the line that is none.
absl::StatusOr<std::vector<std::vector<int32_t>>> OwnPrompts(
    const std::string& model_dir);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_SERVING_PROMPTS_H_
