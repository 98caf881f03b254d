// Answers of SGLang's native POST /generate. Text, ids and logprobs of a stream
// are cumulative: every event has all of its choice so far, which is what
// SGLang's client slices from.

#ifndef SWITCHYARD_ROUTER_SGLANG_GENERATE_FORMAT_H_
#define SWITCHYARD_ROUTER_SGLANG_GENERATE_FORMAT_H_

#include <string>
#include <vector>

#include "router/openai/answer_format.h"
#include "text/tokenizer.h"

namespace switchyard::router {

class SglangFormat final : public AnswerFormat {
 public:
  struct Options {
    std::vector<std::string> ids;  // of each choice
    bool list = false;             // several choices, or a batch of one
    bool return_logprob = false;
    bool text_in_logprobs = false;
    int top_logprobs = 0;
    const text::Tokenizer* tokenizer = nullptr;  // not owned; outlives this
  };
  explicit SglangFormat(Options options);

  std::string Update(const ChoiceUpdate& update,
                     absl::FunctionRef<Usage()> total) override;
  std::string End(const Usage& total) override;
  std::string StreamedError(const ApiError& error) override;
  HttpResponse Whole(absl::Span<const ChoiceResult> choices,
                     const Usage& total) override;

 private:
  Json Item(const ChoiceResult& choice) const;
  Json Logprob(int32_t id, const Json& logprob) const;
  Json Logprobs(absl::Span<const TokenEvent> tokens) const;
  Json TopLogprobs(absl::Span<const TokenEvent> tokens) const;

  const Options options_;
  std::vector<ChoiceResult> choices_;  // so far, of a stream
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_SGLANG_GENERATE_FORMAT_H_
