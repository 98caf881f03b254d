// How an API says what a generation gives: the pieces of a stream, the whole
// answer, errors. One implementation for each API; generation.h calls it.
//
// Not here: SSE's transport, keep-alives, HTTP; tokens to text (choice_text.h).

#ifndef SWITCHYARD_ROUTER_OPENAI_ANSWER_FORMAT_H_
#define SWITCHYARD_ROUTER_OPENAI_ANSWER_FORMAT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/json.h"
#include "router/client/attention_client.h"
#include "router/http/http_message.h"
#include "router/openai/errors.h"
#include "router/text/output_parser.h"

namespace switchyard::router {

// In tokens; of a choice, or of a request's prompts and all choices.
struct Usage {
  int64_t prompt_tokens = 0;
  int64_t cached_tokens = 0;
  // Of earlier answers' reasoning that the chat format hides: in no prompt.
  int64_t stripped_reasoning_tokens = 0;
  int64_t completion_tokens = 0;
  int64_t reasoning_tokens = 0;
};

// What is new of one choice.
struct ChoiceUpdate {
  int index = 0;
  bool first = false;  // of its choice
  OutputDelta delta;
  std::vector<TokenEvent> tokens;  // new ones, if the plan wants them
  // In the first: of the prompt, the tokens whose logprobs were asked for.
  std::vector<TokenEvent> scored_prompt;
  std::string finish_reason;  // "": not finished; else OpenAI's name
  // At the end, null or what ended it: a stop string, expression or token id
  // of the request; matched_stop knows of the model's own end of sequence, too.
  Json stop_reason;
  Json matched_stop;
  const std::vector<int32_t>* prompt_ids = nullptr;  // in the first
  Usage usage;                                       // of this choice so far
  absl::Duration since_arrival;                      // of the request
};

// One whole choice.
struct ChoiceResult {
  int index = 0;
  ParsedMessage message;
  std::vector<TokenEvent> tokens;         // if the plan wants them
  std::vector<TokenEvent> scored_prompt;  // see ChoiceUpdate
  std::string finish_reason;
  Json stop_reason;  // see ChoiceUpdate
  Json matched_stop;
  const std::vector<int32_t>* prompt_ids = nullptr;
  Usage usage;
  absl::Duration since_arrival;
};

// One object for one request; lives on its connection's strand. Every function
// that returns a string gives whole SSE events, or "".
class AnswerFormat {
 public:
  virtual ~AnswerFormat() = default;

  // `total` counts all choices so far.
  virtual std::string Update(const ChoiceUpdate& update,
                             absl::FunctionRef<Usage()> total) = 0;
  // Behind every choice's end.
  virtual std::string End(const Usage& total) = 0;
  // The answer failed after it had begun to stream.
  virtual std::string StreamedError(const ApiError& error) = 0;
  // Against idle timeouts.
  virtual std::string KeepAlive() const { return ": keep-alive\n\n"; }

  // Instead of a stream.
  virtual HttpResponse Whole(absl::Span<const ChoiceResult> choices,
                             const Usage& total) = 0;
  virtual HttpResponse Error(const ApiError& error) const {
    return ErrorResponse(error);
  }

  // The client is gone, or the answer was aborted without a word.
  virtual void Abandoned() {}
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_ANSWER_FORMAT_H_
