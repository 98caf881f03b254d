// Answers of Anthropic's POST /v1/messages: the message, the events of its
// stream, and errors.

#ifndef SWITCHYARD_ROUTER_ANTHROPIC_MESSAGES_FORMAT_H_
#define SWITCHYARD_ROUTER_ANTHROPIC_MESSAGES_FORMAT_H_

#include <string>

#include "router/openai/answer_format.h"

namespace switchyard::router {

// {"type":"error","error":{"type":...,"message":...}}
HttpResponse AnthropicError(const ApiError& error);

// One choice. Its blocks come in the order in which the model wrote them: one
// of thinking, then text and calls.
class AnthropicFormat final : public AnswerFormat {
 public:
  // `id`: "msg_..."; calls have ids made from it.
  AnthropicFormat(std::string id, std::string model)
      : id_(std::move(id)), model_(std::move(model)) {}

  std::string Update(const ChoiceUpdate& update,
                     absl::FunctionRef<Usage()> total) override;
  std::string End(const Usage& total) override;
  std::string StreamedError(const ApiError& error) override;
  std::string KeepAlive() const override;
  HttpResponse Whole(absl::Span<const ChoiceResult> choices,
                     const Usage& total) override;
  HttpResponse Error(const ApiError& error) const override {
    return AnthropicError(error);
  }

 private:
  enum class Block { kNone, kThinking, kText, kToolUse };

  Json Message() const;
  std::string CallId(int call) const;
  void OpenBlock(Block kind, Json block, std::string* events);
  void CloseBlock(std::string* events);
  void Delta(Json delta, std::string* events) const;

  const std::string id_;
  const std::string model_;
  bool started_ = false;
  Block open_ = Block::kNone;
  int num_blocks_ = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ANTHROPIC_MESSAGES_FORMAT_H_
