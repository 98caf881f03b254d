// Answers of /v1/chat/completions and /v1/completions as JSON: whole ones and
// the chunks of a stream. Pure functions of values; Not here: SSE framing,
// HTTP.

#ifndef SWITCHYARD_ROUTER_OPENAI_RESPONSE_H_
#define SWITCHYARD_ROUTER_OPENAI_RESPONSE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "base/json.h"
#include "router/client/attention_client.h"
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
  bool return_token_ids = false;
  bool tokens_as_ids = false;    // "token_id:7" where logprobs show a token
  bool usage_in_chunks = false;  // "usage": null unless set
  const text::Tokenizer* tokenizer = nullptr;
};

struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t reasoning_tokens = 0;
};

// What is new of one choice.
struct ChoiceUpdate {
  int index = 0;
  bool first = false;  // of its choice: carries the role
  OutputDelta delta;
  std::vector<TokenEvent> tokens;  // new ones, for logprobs and token_ids
  int64_t text_offset = 0;    // characters of the choice before these tokens
  std::string finish_reason;  // "": not finished
  Json stop_reason;           // matched stop string or token id, or null
  const std::vector<int32_t>* prompt_ids =
      nullptr;  // in the first, if asked for
};

// One whole choice.
struct ChoiceResult {
  int index = 0;
  ParsedMessage message;
  std::vector<TokenEvent> tokens;
  std::string finish_reason;
  Json stop_reason;
  const std::vector<int32_t>* prompt_ids = nullptr;
};

Json UsageJson(const Usage& usage);

Json Chunk(const ResponseShape& shape, const ChoiceUpdate& update);
// The last one of a stream with include_usage: no choices.
Json UsageChunk(const ResponseShape& shape, const Usage& usage);
Json WholeResponse(const ResponseShape& shape,
                   absl::Span<const ChoiceResult> choices, const Usage& usage);

// The characters (code points) that these tokens' texts have, each by itself:
// how logprobs' text_offset counts.
int64_t CountCharacters(const text::Tokenizer& tokenizer,
                        absl::Span<const TokenEvent> tokens);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_RESPONSE_H_
