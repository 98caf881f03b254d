// Answers of /v1/chat/completions and /v1/completions: whole ones and the
// chunks of a stream.

#ifndef SWITCHYARD_ROUTER_OPENAI_RESPONSE_H_
#define SWITCHYARD_ROUTER_OPENAI_RESPONSE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "base/json.h"
#include "router/openai/answer_format.h"
#include "router/text/output_parser.h"
#include "text/tokenizer.h"

namespace switchyard::router {

enum class Api { kChat, kCompletions };

// What all chunks of one answer share.
struct ResponseShape {
  Api api = Api::kChat;
  std::string id;  // "chatcmpl-..." or "cmpl-..."
  int64_t created = 0;
  std::string model;
  std::string system_fingerprint;
  bool logprobs = false;
  int top_logprobs = 0;
  // ChoiceResult::scored_prompt stands before the output's logprobs.
  bool prompt_in_logprobs = false;
  // It is shown as `prompt_logprobs`, with so many of the likeliest tokens.
  absl::optional<int> prompt_logprobs;
  bool return_token_ids = false;
  bool tokens_as_ids = false;  // "token_id:7" where logprobs show a token
  bool include_usage = false;  // in a chunk of its own, at the end
  bool continuous_usage_stats = false;  // in every chunk
  const text::Tokenizer* tokenizer = nullptr;
};

Json UsageJson(const Usage& usage);

// SSE: "data: ...\n\n".
std::string DataEvent(const Json& json);
inline constexpr char kDoneEvent[] = "data: [DONE]\n\n";

// Of logprobs: no infinity, which JSON has not.
Json LogprobJson(float logprob);

// /v1/chat/completions and /v1/completions.
class OpenAiFormat final : public AnswerFormat {
 public:
  explicit OpenAiFormat(ResponseShape shape) : shape_(std::move(shape)) {}

  std::string Update(const ChoiceUpdate& update,
                     absl::FunctionRef<Usage()> total) override;
  std::string End(const Usage& total) override;
  std::string StreamedError(const ApiError& error) override;
  HttpResponse Whole(absl::Span<const ChoiceResult> choices,
                     const Usage& total) override;

 private:
  const ResponseShape shape_;
  // Characters of each choice before its next token: logprobs' text_offset.
  std::vector<int64_t> text_offsets_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_RESPONSE_H_
