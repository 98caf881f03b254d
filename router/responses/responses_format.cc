#include "router/responses/responses_format.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace switchyard::router {
namespace {

Json ReasoningItem(std::string id, const std::string& text) {
  Json content = Json::array();
  if (!text.empty()) {
    content.push_back({{"type", "reasoning_text"}, {"text", text}});
  }
  return {{"id", std::move(id)},          {"type", "reasoning"},
          {"summary", Json::array()},     {"content", std::move(content)},
          {"encrypted_content", nullptr}, {"status", "completed"}};
}

Json TextPart(const std::string& text) {
  return {{"type", "output_text"},
          {"text", text},
          {"annotations", Json::array()},
          {"logprobs", Json::array()}};
}

Json MessageItem(std::string id, Json content, const char* status) {
  return {{"id", std::move(id)},
          {"type", "message"},
          {"status", status},
          {"role", "assistant"},
          {"content", std::move(content)}};
}

Json CallItem(const std::string& id, const std::string& name,
              const std::string& arguments, const char* status) {
  return {{"id", id},
          {"type", "function_call"},
          {"status", status},
          {"call_id", absl::StrCat("call_", absl::StripPrefix(id, "fc_"))},
          {"name", name},
          {"arguments", arguments}};
}

Json ResponseUsage(const Usage& usage) {
  return {
      {"input_tokens", usage.prompt_tokens},
      {"input_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
      {"output_tokens", usage.completion_tokens},
      {"output_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}},
      {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

Json ErrorFields(const ApiError& error) {
  return {{"code", error.code.empty() ? error.type : error.code},
          {"message", error.message}};
}

}  // namespace

Json ResponsesFormat::Unfinished(const Options& options,
                                 const std::string& status) {
  Json response = {{"id", options.id},
                   {"object", "response"},
                   {"created_at", options.created},
                   {"status", status},
                   {"background", options.background},
                   {"error", nullptr},
                   {"incomplete_details", nullptr},
                   {"model", options.model},
                   {"output", Json::array()},
                   {"usage", nullptr}};
  for (const auto& [key, value] : options.echo.items()) response[key] = value;
  return response;
}

Json ResponsesFormat::Finished(const std::string& finish_reason, Json output,
                               const Usage& usage) const {
  std::string status = "completed";
  if (finish_reason == "length") status = "incomplete";
  if (finish_reason == "cancelled") status = "cancelled";
  if (finish_reason == "abort") status = "cancelled";
  Json response = Unfinished(options_, status);
  if (status == "incomplete") {
    response["incomplete_details"] = {{"reason", "max_output_tokens"}};
  }
  response["output"] = std::move(output);
  response["usage"] = ResponseUsage(usage);
  return response;
}

void ResponsesFormat::Complete(const Json& response) const {
  if (options_.on_complete) options_.on_complete(response);
}

std::string ResponsesFormat::ItemId(const char* prefix) const {
  return absl::StrCat(prefix, absl::StripPrefix(options_.id, "resp_"), "_",
                      output_.size());
}

std::string ResponsesFormat::Event(const char* type, Json fields) {
  Json data = {{"type", type}, {"sequence_number", sequence_number_++}};
  for (auto& [key, value] : fields.items()) data[key] = std::move(value);
  return absl::StrCat("event: ", type, "\ndata: ", DumpJson(data), "\n\n");
}

void ResponsesFormat::Open(Item kind, Json item, std::string* events) {
  Close(events);
  open_ = kind;
  text_.clear();
  *events += Event("response.output_item.added",
                   {{"output_index", output_.size()}, {"item", item}});
  output_.push_back(std::move(item));
}

void ResponsesFormat::OpenPart(Json part, std::string* events) {
  *events += Event("response.content_part.added",
                   {{"item_id", output_.back()["id"]},
                    {"output_index", output_.size() - 1},
                    {"content_index", 0},
                    {"part", std::move(part)}});
}

void ResponsesFormat::Close(std::string* events) {
  if (open_ == Item::kNone) return;
  const Item kind = std::exchange(open_, Item::kNone);
  Json& item = output_.back();
  Json place = {{"item_id", item["id"]}, {"output_index", output_.size() - 1}};
  if (kind == Item::kCall) {
    Json done = place;
    done["name"] = item["name"];
    done["arguments"] = text_;
    *events += Event("response.function_call_arguments.done", std::move(done));
    item["arguments"] = text_;
  } else {
    place["content_index"] = 0;
    const bool reasoning = kind == Item::kReasoning;
    Json part = reasoning ? Json({{"type", "reasoning_text"}, {"text", text_}})
                          : TextPart(text_);
    Json done = place;
    done["text"] = text_;
    if (!reasoning) done["logprobs"] = Json::array();
    *events += Event(reasoning ? "response.reasoning_text.done"
                               : "response.output_text.done",
                     std::move(done));
    Json part_done = place;
    part_done["part"] = part;
    *events += Event("response.content_part.done", std::move(part_done));
    item["content"] = Json::array({std::move(part)});
  }
  item["status"] = finish_reason_ == "length" ? "incomplete" : "completed";
  *events += Event("response.output_item.done",
                   {{"output_index", output_.size() - 1}, {"item", item}});
}

std::string ResponsesFormat::Update(const ChoiceUpdate& update,
                                    absl::FunctionRef<Usage()>) {
  std::string events;
  if (!std::exchange(started_, true)) {
    const Json response = Unfinished(options_, "in_progress");
    events += Event("response.created", {{"response", response}});
    events += Event("response.in_progress", {{"response", response}});
  }
  const auto delta = [&](const char* type, const std::string& text,
                         bool has_part) {
    text_ += text;
    Json fields = {{"item_id", output_.back()["id"]},
                   {"output_index", output_.size() - 1}};
    if (has_part) fields["content_index"] = 0;
    fields["delta"] = text;
    if (open_ == Item::kMessage) fields["logprobs"] = Json::array();
    events += Event(type, std::move(fields));
  };
  const OutputDelta& news = update.delta;
  if (!news.reasoning.empty()) {
    if (open_ != Item::kReasoning) {
      Json item = ReasoningItem(ItemId("rs_"), "");
      item["status"] = "in_progress";
      Open(Item::kReasoning, std::move(item), &events);
      OpenPart({{"type", "reasoning_text"}, {"text", ""}}, &events);
    }
    delta("response.reasoning_text.delta", news.reasoning, true);
  }
  if (!news.content.empty()) {
    if (open_ != Item::kMessage) {
      Open(Item::kMessage,
           MessageItem(ItemId("msg_"), Json::array(), "in_progress"), &events);
      OpenPart(TextPart(""), &events);
    }
    delta("response.output_text.delta", news.content, true);
  }
  for (const OutputDelta::CallDelta& call : news.tool_calls) {
    if (call.name) {
      Open(Item::kCall, CallItem(ItemId("fc_"), *call.name, "", "in_progress"),
           &events);
    }
    if (!call.arguments.empty()) {
      delta("response.function_call_arguments.delta", call.arguments, false);
    }
  }
  if (!update.finish_reason.empty()) {
    finish_reason_ = update.finish_reason;
    Close(&events);
  }
  return events;
}

std::string ResponsesFormat::End(const Usage& total) {
  const Json response = Finished(finish_reason_, output_, total);
  Complete(response);
  const bool incomplete = finish_reason_ == "length";
  return Event(incomplete ? "response.incomplete" : "response.completed",
               {{"response", response}});
}

std::string ResponsesFormat::StreamedError(const ApiError& error) {
  Json response = Unfinished(options_, "failed");
  response["output"] = output_;
  response["error"] = ErrorFields(error);
  Complete(response);
  Json fields = ErrorFields(error);
  fields["param"] = nullptr;
  return absl::StrCat(Event("error", std::move(fields)),
                      Event("response.failed", {{"response", response}}));
}

HttpResponse ResponsesFormat::Whole(absl::Span<const ChoiceResult> choices,
                                    const Usage& total) {
  const ChoiceResult& choice = choices[0];
  const char* status =
      choice.finish_reason == "length" ? "incomplete" : "completed";
  if (!choice.message.reasoning.empty()) {
    output_.push_back(ReasoningItem(ItemId("rs_"), choice.message.reasoning));
  }
  if (!choice.message.content.empty()) {
    output_.push_back(
        MessageItem(ItemId("msg_"),
                    Json::array({TextPart(choice.message.content)}), status));
  }
  for (const ToolCall& call : choice.message.tool_calls) {
    output_.push_back(
        CallItem(ItemId("fc_"), call.name, call.arguments, status));
  }
  const Json response = Finished(choice.finish_reason, output_, total);
  Complete(response);
  return JsonResponse(200, response);
}

HttpResponse ResponsesFormat::Error(const ApiError& error) const {
  Json response = Unfinished(options_, "failed");
  response["error"] = ErrorFields(error);
  Complete(response);
  return ErrorResponse(error);
}

void ResponsesFormat::Abandoned() {
  Json response = Unfinished(options_, "cancelled");
  response["output"] = output_;
  Complete(response);
}

}  // namespace switchyard::router
