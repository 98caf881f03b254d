#include "router/sglang/generate_format.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "router/openai/response.h"

namespace switchyard::router {
namespace {

Json FinishReason(const ChoiceResult& choice) {
  const std::string& reason = choice.finish_reason;
  if (reason.empty()) return nullptr;
  if (reason == "length") {
    return {{"type", "length"}, {"length", choice.usage.completion_tokens}};
  }
  if (reason == "abort") {
    return {{"type", "abort"},
            {"message", "aborted by /abort_request"},
            {"status_code", nullptr},
            {"err_type", nullptr}};
  }
  return {{"type", "stop"}, {"matched", choice.matched_stop}};
}

}  // namespace

SglangFormat::SglangFormat(Options options)
    : options_(std::move(options)), choices_(options_.ids.size()) {}

// [logprob, id, text]
Json SglangFormat::Logprob(int32_t id, const Json& logprob) const {
  Json text = nullptr;
  if (options_.text_in_logprobs) {
    text = options_.tokenizer->Decode({id}, /*skip_special_tokens=*/false);
  }
  return Json::array({logprob, id, std::move(text)});
}

Json SglangFormat::Logprobs(absl::Span<const TokenEvent> tokens) const {
  Json list = Json::array();
  for (const TokenEvent& token : tokens) {
    list.push_back(Logprob(token.id, token.position == 0
                                         ? Json(nullptr)
                                         : LogprobJson(token.logprob)));
  }
  return list;
}

Json SglangFormat::TopLogprobs(absl::Span<const TokenEvent> tokens) const {
  Json list = Json::array();
  for (const TokenEvent& token : tokens) {
    if (token.position == 0) {  // nothing was before it
      list.push_back(nullptr);
      continue;
    }
    Json top = Json::array();
    for (const auto& [id, logprob] : token.top_logprobs) {
      if (top.size() == static_cast<size_t>(options_.top_logprobs)) break;
      top.push_back(Logprob(id, LogprobJson(logprob)));
    }
    list.push_back(std::move(top));
  }
  return list;
}

Json SglangFormat::Item(const ChoiceResult& choice) const {
  Json output_ids = Json::array();
  for (const TokenEvent& token : choice.tokens) output_ids.push_back(token.id);
  Json meta = {{"id", options_.ids[static_cast<size_t>(choice.index)]},
               {"finish_reason", FinishReason(choice)},
               {"prompt_tokens", choice.usage.prompt_tokens},
               {"weight_version", "default"}};
  if (options_.return_logprob) {
    meta["input_token_logprobs"] = Logprobs(choice.scored_prompt);
    meta["output_token_logprobs"] = Logprobs(choice.tokens);
    if (options_.top_logprobs > 0) {
      meta["input_top_logprobs"] = TopLogprobs(choice.scored_prompt);
      meta["output_top_logprobs"] = TopLogprobs(choice.tokens);
    }
  }
  meta["completion_tokens"] = choice.usage.completion_tokens;
  meta["cached_tokens"] = choice.usage.cached_tokens;
  meta["e2e_latency"] = absl::ToDoubleSeconds(choice.since_arrival);
  return {{"text", choice.message.content},
          {"output_ids", std::move(output_ids)},
          {"meta_info", std::move(meta)}};
}

std::string SglangFormat::Update(const ChoiceUpdate& update,
                                 absl::FunctionRef<Usage()>) {
  ChoiceResult& choice = choices_[static_cast<size_t>(update.index)];
  choice.index = update.index;
  choice.message.content += update.delta.content;
  choice.tokens.insert(choice.tokens.end(), update.tokens.begin(),
                       update.tokens.end());
  choice.scored_prompt.insert(choice.scored_prompt.end(),
                              update.scored_prompt.begin(),
                              update.scored_prompt.end());
  choice.finish_reason = update.finish_reason;
  choice.matched_stop = update.matched_stop;
  choice.usage = update.usage;
  choice.since_arrival = update.since_arrival;
  Json item = Item(choice);
  if (options_.list) item["index"] = update.index;
  return DataEvent(item);
}

std::string SglangFormat::End(const Usage&) { return kDoneEvent; }

std::string SglangFormat::StreamedError(const ApiError& error) {
  return absl::StrCat("data: ", ErrorBody(error), "\n\n", kDoneEvent);
}

HttpResponse SglangFormat::Whole(absl::Span<const ChoiceResult> choices,
                                 const Usage&) {
  if (!options_.list) return JsonResponse(200, Item(choices[0]));
  Json list = Json::array();
  for (const ChoiceResult& choice : choices) list.push_back(Item(choice));
  return JsonResponse(200, list);
}

}  // namespace switchyard::router
