// The JSON of /v1/chat/completions and /v1/completions -> checked values.
//
// Lenient where clients differ (null is absent, unknown fields are ignored),
// strict where a silent misunderstanding would change the answer: a field that
// is known but not served (a LoRA, embeddings as a prompt, ...) is refused by
// name. Below: text/ renders and tokenizes. Not here: HTTP, tokens, workers.

#ifndef SWITCHYARD_ROUTER_OPENAI_REQUEST_H_
#define SWITCHYARD_ROUTER_OPENAI_REQUEST_H_

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "base/json.h"
#include "model/config.h"
#include "router/client/attention_client.h"
#include "router/openai/output_fields.h"
#include "router/text/chat_format.h"
#include "text/regex_search.h"

namespace switchyard::router {

// What a request is checked against, and what it gets where it says nothing.
struct RequestDefaults {
  model::GenerationConfig generation;
  int64_t vocab_size = 0;
  int max_choices = 128;  // prompts times n
  bool strict = false;    // refuse fields that nobody knows
};

// What the client sees of the reasoning.
enum class ReasoningOutput {
  kStreamed,
  kWhole,   // in a stream too, at its end
  kHidden,  // not at all; it still counts
};

// What both APIs share.
struct GenerationParams {
  SamplingParams sampling;  // `seed` counts only if `has_seed`
  bool has_seed = false;
  absl::optional<int64_t> max_tokens;
  int n = 1;
  std::vector<std::string> stop;
  std::vector<std::shared_ptr<const text::Regex>> stop_regex;
  std::vector<int32_t> stop_token_ids;
  bool ignore_eos = false;
  bool include_stop_str_in_output = false;
  bool skip_special_tokens = true;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage_stats = false;
  bool logprobs = false;
  int top_logprobs = 0;  // [0, 20]
  // Of each token of the prompt the likeliest in its place, [0, 20], and its
  // own logprob. Only in whole answers.
  absl::optional<int> prompt_logprobs;
  bool return_token_ids = false;
  bool tokens_as_ids = false;  // "token_id:7" instead of a token's text
  // Of each prompt, only so many tokens, its last ones; -1: what leaves room
  // for output.
  absl::optional<int64_t> truncate_prompt_tokens;
  ReasoningOutput reasoning = ReasoningOutput::kStreamed;
  // Without the calls and the reasoning around it; those are the planner's.
  absl::optional<OutputFormat> output_format;
  absl::optional<absl::Duration> timeout;
  std::string request_id;  // the client's name for the answer, or ""
  int priority = 0;        // lower goes first
  // Among whom each prompt's prefixes are shared (cache_scope.h); empty:
  // everybody who names no scope.
  std::vector<std::string> cache_scopes;
  // Who asks, for fairness: the request's `user`, and the API key in a form
  // that does not give it away.
  std::string client;
};

struct ChatRequest {
  GenerationParams params;
  ChatPrompt prompt;              // messages normalised (chat_messages.h)
  bool parse_tool_calls = false;  // it has tools and may call them
  ToolChoice tool_choice;
  bool parallel_tool_calls = true;  // false: the first call ends the answer
  bool separate_reasoning = true;
  absl::optional<int64_t> thinking_budget;  // tokens
};

// Text, or token ids.
using Prompt = std::variant<std::string, std::vector<int32_t>>;

struct CompletionRequest {
  GenerationParams params;
  std::vector<Prompt> prompts;  // >= 1
  bool echo = false;
  bool prefill_only = false;  // max_tokens: 0
};

// A JSON object. INVALID_ARGUMENT: something else.
absl::StatusOr<Json> ParseBody(absl::string_view body);

// INVALID_ARGUMENT with the path of the field (errors.h, ParamError).
absl::StatusOr<ChatRequest> ParseChatRequest(const Json& body,
                                             const RequestDefaults& defaults);
absl::StatusOr<CompletionRequest> ParseCompletionRequest(
    const Json& body, const RequestDefaults& defaults);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_REQUEST_H_
