// A request's body -> what to generate: parse, check, render, tokenize.
//
// Above: api.h calls it on the text pool, for it takes time in proportion to
// the text. Pure: no I/O, no workers.

#ifndef SWITCHYARD_ROUTER_OPENAI_PLANNER_H_
#define SWITCHYARD_ROUTER_OPENAI_PLANNER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "router/openai/generation.h"
#include "router/openai/request.h"
#include "router/openai/response.h"
#include "router/text/chat_format.h"
#include "text/tokenizer.h"

namespace switchyard::router {

// Immutable, so thread-safe.
class Planner {
 public:
  struct Options {
    const text::Tokenizer* tokenizer = nullptr;  // not owned; outlives this
    ChatFormat chat_format = ChatFormat::kInstruct;
    RequestDefaults defaults;
    std::vector<int32_t> eos_token_ids;
  };
  explicit Planner(Options options) : options_(std::move(options)) {}

  // Leaves out what the clock, chance and the workers decide: the shape's id,
  // created, model and system_fingerprint, and the seed of a request without
  // one. `max_model_len` bounds prompt and output together: max_tokens is cut
  // to what is left, and a prompt that leaves nothing is INVALID_ARGUMENT.
  absl::StatusOr<GenerationPlan> Plan(Api api, absl::string_view body,
                                      int64_t max_model_len) const;

 private:
  absl::Status PlanChat(const Json& body, GenerationPlan* plan) const;
  absl::Status PlanCompletions(const Json& body, GenerationPlan* plan) const;
  absl::Status SetMaxTokens(int64_t max_model_len, GenerationPlan* plan) const;

  const Options options_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_PLANNER_H_
