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

// What the clock, chance and the workers say about one request.
struct PlanContext {
  int64_t max_model_len = 0;  // prompt and output together
  std::string id;             // unique; hexadecimal
  int64_t created = 0;        // Unix seconds
  std::string model;          // the served name
  std::string system_fingerprint;
  uint64_t seed = 0;  // of a request that has none
};

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

  // The body of /v1/chat/completions or /v1/completions.
  absl::StatusOr<GenerationPlan> Plan(Api api, absl::string_view body,
                                      const PlanContext& context) const;

  // For other APIs: everything but the plan's format. max_tokens is cut to what
  // the context leaves; a prompt that leaves nothing is INVALID_ARGUMENT, about
  // the field `param`.
  absl::StatusOr<GenerationPlan> PlanChat(ChatRequest request,
                                          const PlanContext& context,
                                          const char* param) const;
  absl::StatusOr<GenerationPlan> PlanPrompts(CompletionRequest request,
                                             const PlanContext& context,
                                             const char* param) const;

  // The ids of a chat's prompt. `hidden_reasoning` as RenderChat's.
  absl::StatusOr<std::vector<int32_t>> ChatTokens(
      const ChatRequest& request,
      std::string* hidden_reasoning = nullptr) const;

  const Options& options() const { return options_; }

 private:
  absl::Status Complete(const PlanContext& context, const char* param,
                        GenerationPlan* plan) const;

  const Options options_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_PLANNER_H_
