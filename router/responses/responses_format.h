// Answers of OpenAI's POST /v1/responses: the response object, and the events
// of its stream.

#ifndef SWITCHYARD_ROUTER_RESPONSES_RESPONSES_FORMAT_H_
#define SWITCHYARD_ROUTER_RESPONSES_RESPONSES_FORMAT_H_

#include <cstdint>
#include <functional>
#include <string>

#include "router/openai/answer_format.h"

namespace switchyard::router {

// One choice. Its items come in the order in which the model wrote them: one of
// reasoning, then messages and calls.
class ResponsesFormat final : public AnswerFormat {
 public:
  struct Options {
    std::string id;  // "resp_..."; items have ids made from it
    int64_t created = 0;
    std::string model;
    bool background = false;
    Json echo;  // of the request (responses_request.h)
    // Called with the object when it is complete, whatever became of it; null:
    // nobody wants to know.
    std::function<void(const Json& response)> on_complete;
  };
  explicit ResponsesFormat(Options options) : options_(std::move(options)) {}

  // The object before anything is generated: "queued" or "in_progress".
  static Json Unfinished(const Options& options, const std::string& status);

  std::string Update(const ChoiceUpdate& update,
                     absl::FunctionRef<Usage()> total) override;
  std::string End(const Usage& total) override;
  std::string StreamedError(const ApiError& error) override;
  HttpResponse Whole(absl::Span<const ChoiceResult> choices,
                     const Usage& total) override;
  HttpResponse Error(const ApiError& error) const override;
  void Abandoned() override;

 private:
  enum class Item { kNone, kReasoning, kMessage, kCall };

  Json Finished(const std::string& finish_reason, Json output,
                const Usage& usage) const;
  std::string ItemId(const char* prefix) const;
  std::string Event(const char* type, Json fields);
  void Open(Item kind, Json item, std::string* events);
  void OpenPart(Json part, std::string* events);
  void Close(std::string* events);
  void Complete(const Json& response) const;

  const Options options_;
  int64_t sequence_number_ = 0;
  bool started_ = false;
  // The item that is being written: the last one of output_.
  Item open_ = Item::kNone;
  Json output_ = Json::array();
  std::string text_;  // of the open item: text or arguments
  std::string finish_reason_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_RESPONSES_RESPONSES_FORMAT_H_
