#include "router/openai/response.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard::router {
namespace {

// JSON has no infinity: what vLLM prints for a token of probability 0.
constexpr double kMinLogprob = -9999.0;

std::string TokenText(const text::Tokenizer& tokenizer, int32_t id) {
  return tokenizer.Decode({id}, /*skip_special_tokens=*/false);
}

Json TextOrNull(const std::string& text) {
  return text.empty() ? Json(nullptr) : Json(text);
}

int64_t Characters(const std::string& utf8) {
  int64_t count = 0;
  // Bytes 10xxxxxx continue a character.
  for (const char c : utf8) count += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  return count;
}

// As logprobs show it.
std::string TokenName(const ResponseShape& shape, int32_t id) {
  return shape.tokens_as_ids ? absl::StrCat("token_id:", id)
                             : TokenText(*shape.tokenizer, id);
}

Json ChatToken(const ResponseShape& shape, int32_t id, float logprob) {
  Json bytes = Json::array();
  for (const char c : shape.tokenizer->TokenBytes(id)) {
    bytes.push_back(static_cast<int>(static_cast<uint8_t>(c)));
  }
  return {{"token", TokenName(shape, id)},
          {"logprob", LogprobJson(logprob)},
          {"bytes", std::move(bytes)}};
}

Json ChatLogprobs(const ResponseShape& shape,
                  absl::Span<const TokenEvent> tokens) {
  Json content = Json::array();
  for (const TokenEvent& event : tokens) {
    Json entry = ChatToken(shape, event.id, event.logprob);
    Json top = Json::array();
    for (const auto& [id, logprob] : event.top_logprobs) {
      if (top.size() == static_cast<size_t>(shape.top_logprobs)) break;
      top.push_back(ChatToken(shape, id, logprob));
    }
    entry["top_logprobs"] = std::move(top);
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

Json CompletionLogprobs(const ResponseShape& shape,
                        absl::Span<const TokenEvent> tokens,
                        int64_t text_offset) {
  Json offsets = Json::array(), logprobs = Json::array(), texts = Json::array(),
       tops = Json::array();
  for (const TokenEvent& event : tokens) {
    const std::string text = TokenText(*shape.tokenizer, event.id);
    offsets.push_back(text_offset);
    text_offset += Characters(text);
    if (event.position == 0) {  // of an echoed prompt: nothing was before it
      logprobs.push_back(nullptr);
      texts.push_back(TokenName(shape, event.id));
      tops.push_back(nullptr);
      continue;
    }
    logprobs.push_back(LogprobJson(event.logprob));
    // Several tokens may have the same text (parts of characters): the best
    // counts.
    Json top = Json::object();
    int left = shape.top_logprobs;
    for (const auto& [id, logprob] : event.top_logprobs) {
      if (left-- == 0) break;
      top.emplace(TokenName(shape, id), LogprobJson(logprob));
    }
    const std::string name = TokenName(shape, event.id);
    top.emplace(name, LogprobJson(event.logprob));
    texts.push_back(name);
    tops.push_back(std::move(top));
  }
  return {{"text_offset", std::move(offsets)},
          {"token_logprobs", std::move(logprobs)},
          {"tokens", std::move(texts)},
          {"top_logprobs", std::move(tops)}};
}

Json LogprobsJson(const ResponseShape& shape,
                  absl::Span<const TokenEvent> tokens, int64_t text_offset) {
  if (!shape.logprobs) return nullptr;
  return shape.api == Api::kChat
             ? ChatLogprobs(shape, tokens)
             : CompletionLogprobs(shape, tokens, text_offset);
}

// As vLLM has it: of each token, by their ids, its own logprob and those of the
// likeliest in its place; null for the first, before which nothing was.
Json PromptLogprobs(const ResponseShape& shape,
                    absl::Span<const TokenEvent> prompt) {
  const auto entry = [&](int32_t id, float logprob, int64_t rank) {
    return Json{{"logprob", LogprobJson(logprob)},
                {"rank", rank > 0 ? Json(rank) : Json(nullptr)},
                {"decoded_token", TokenText(*shape.tokenizer, id)}};
  };
  Json list = Json::array();
  for (const TokenEvent& event : prompt) {
    if (event.position == 0) {
      list.push_back(nullptr);
      continue;
    }
    Json tokens = Json::object();
    tokens[absl::StrCat(event.id)] = entry(event.id, event.logprob, event.rank);
    int64_t rank = 0;
    for (const auto& [id, logprob] : event.top_logprobs) {
      if (++rank > *shape.prompt_logprobs) break;
      tokens[absl::StrCat(id)] = entry(id, logprob, rank);
    }
    list.push_back(std::move(tokens));
  }
  return list;
}

Json TokenIds(absl::Span<const TokenEvent> tokens) {
  Json ids = Json::array();
  for (const TokenEvent& event : tokens) ids.push_back(event.id);
  return ids;
}

Json Head(const ResponseShape& shape, bool chunk) {
  const char* object = shape.api == Api::kCompletions ? "text_completion"
                       : chunk                        ? "chat.completion.chunk"
                                                      : "chat.completion";
  return {{"id", shape.id},
          {"object", object},
          {"created", shape.created},
          {"model", shape.model},
          {"system_fingerprint", shape.system_fingerprint}};
}

// Ids need only be unique within a conversation; the answer's id is.
std::string CallId(const ResponseShape& shape, int choice, size_t call) {
  const size_t dash = shape.id.find('-');
  return absl::StrCat("call_", shape.id.substr(dash + 1), "_", choice, "_",
                      call);
}

Json DeltaJson(const ResponseShape& shape, const ChoiceUpdate& update) {
  Json delta = Json::object();
  const OutputDelta& news = update.delta;
  if (update.first) delta["role"] = "assistant";
  if (!news.content.empty() || (update.first && news.empty())) {
    delta["content"] = news.content;
  }
  if (!news.reasoning.empty()) {
    // Both names are in use: vLLM's older clients and SGLang read the first.
    delta["reasoning_content"] = news.reasoning;
    delta["reasoning"] = news.reasoning;
  }
  if (news.tool_calls.empty()) return delta;
  Json calls = Json::array();
  for (const OutputDelta::CallDelta& call : news.tool_calls) {
    Json entry = {{"index", call.index}};
    Json function = Json::object();
    if (call.name) {
      entry["id"] =
          CallId(shape, update.index, static_cast<size_t>(call.index));
      entry["type"] = "function";
      function["name"] = *call.name;
    }
    function["arguments"] = call.arguments;
    entry["function"] = std::move(function);
    calls.push_back(std::move(entry));
  }
  delta["tool_calls"] = std::move(calls);
  return delta;
}

Json MessageJson(const ResponseShape& shape, const ChoiceResult& choice) {
  const ParsedMessage& parsed = choice.message;
  const bool has_more = !parsed.reasoning.empty() || !parsed.tool_calls.empty();
  Json message = {{"role", "assistant"}};
  message["content"] =
      has_more ? TextOrNull(parsed.content) : Json(parsed.content);
  message["refusal"] = nullptr;
  message["reasoning_content"] = TextOrNull(parsed.reasoning);
  message["reasoning"] = TextOrNull(parsed.reasoning);
  if (parsed.tool_calls.empty()) return message;
  Json calls = Json::array();
  for (size_t i = 0; i < parsed.tool_calls.size(); ++i) {
    const ToolCall& call = parsed.tool_calls[i];
    calls.push_back(
        {{"id", CallId(shape, choice.index, i)},
         {"type", "function"},
         {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  message["tool_calls"] = std::move(calls);
  return message;
}

// The characters (code points) that these tokens' texts have, each by itself.
int64_t CountCharacters(const text::Tokenizer& tokenizer,
                        absl::Span<const TokenEvent> tokens) {
  int64_t count = 0;
  for (const TokenEvent& event : tokens) {
    count += Characters(TokenText(tokenizer, event.id));
  }
  return count;
}

// An echoed prompt's tokens, if they are shown, and the output's.
std::vector<TokenEvent> Joined(const ResponseShape& shape,
                               const std::vector<TokenEvent>& prompt,
                               const std::vector<TokenEvent>& output) {
  if (!shape.prompt_in_logprobs) return output;
  std::vector<TokenEvent> all = prompt;
  all.insert(all.end(), output.begin(), output.end());
  return all;
}

Json Chunk(const ResponseShape& shape, const ChoiceUpdate& update,
           int64_t text_offset) {
  Json choice = {{"index", update.index}};
  if (shape.api == Api::kChat) {
    choice["delta"] = DeltaJson(shape, update);
  } else {
    choice["text"] = update.delta.content;
  }
  const std::vector<TokenEvent> scored =
      Joined(shape, update.scored_prompt, update.tokens);
  choice["logprobs"] =
      scored.empty() ? Json(nullptr) : LogprobsJson(shape, scored, text_offset);
  choice["finish_reason"] = TextOrNull(update.finish_reason);
  if (!update.finish_reason.empty()) {
    choice["stop_reason"] = update.stop_reason;
    choice["matched_stop"] = update.matched_stop;
  }
  Json chunk = Head(shape, /*chunk=*/true);
  if (shape.return_token_ids) {
    choice["token_ids"] = TokenIds(update.tokens);
    if (update.prompt_ids != nullptr) {
      (shape.api == Api::kChat ? chunk : choice)["prompt_token_ids"] =
          *update.prompt_ids;
    }
  }
  chunk["choices"] = Json::array({std::move(choice)});
  return chunk;
}

}  // namespace

// As a double, a float32 prints with the digits that bring it back exactly.
Json LogprobJson(float logprob) {
  return std::isfinite(logprob) ? static_cast<double>(logprob) : kMinLogprob;
}

std::string DataEvent(const Json& json) {
  return absl::StrCat("data: ", DumpJson(json), "\n\n");
}

Json UsageJson(const Usage& usage) {
  Json prompt = {{"cached_tokens", usage.cached_tokens}};
  if (usage.stripped_reasoning_tokens > 0) {
    prompt["stripped_reasoning_tokens"] = usage.stripped_reasoning_tokens;
  }
  return {{"prompt_tokens", usage.prompt_tokens},
          {"completion_tokens", usage.completion_tokens},
          {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
          {"prompt_tokens_details", std::move(prompt)},
          {"completion_tokens_details",
           {{"reasoning_tokens", usage.reasoning_tokens}}}};
}

std::string OpenAiFormat::Update(const ChoiceUpdate& update,
                                 absl::FunctionRef<Usage()> total) {
  int64_t offset = 0;
  if (shape_.logprobs && shape_.api == Api::kCompletions) {
    const size_t index = static_cast<size_t>(update.index);
    if (text_offsets_.size() <= index) text_offsets_.resize(index + 1);
    offset = text_offsets_[index];
    text_offsets_[index] +=
        CountCharacters(*shape_.tokenizer, update.scored_prompt) +
        CountCharacters(*shape_.tokenizer, update.tokens);
  }
  Json chunk = Chunk(shape_, update, offset);
  if (shape_.continuous_usage_stats) {
    chunk["usage"] = UsageJson(total());
  } else if (shape_.include_usage) {
    chunk["usage"] = nullptr;
  }
  return DataEvent(chunk);
}

std::string OpenAiFormat::End(const Usage& total) {
  if (!shape_.include_usage) return kDoneEvent;
  Json chunk = Head(shape_, /*chunk=*/true);
  chunk["choices"] = Json::array();
  chunk["usage"] = UsageJson(total);
  return absl::StrCat(DataEvent(chunk), kDoneEvent);
}

std::string OpenAiFormat::StreamedError(const ApiError& error) {
  return absl::StrCat("data: ", ErrorBody(error), "\n\n", kDoneEvent);
}

HttpResponse OpenAiFormat::Whole(absl::Span<const ChoiceResult> choices,
                                 const Usage& total) {
  Json response = Head(shape_, /*chunk=*/false);
  Json list = Json::array();
  for (const ChoiceResult& result : choices) {
    Json choice = {{"index", result.index}};
    if (shape_.api == Api::kChat) {
      choice["message"] = MessageJson(shape_, result);
    } else {
      choice["text"] = result.message.content;
    }
    choice["logprobs"] = LogprobsJson(
        shape_, Joined(shape_, result.scored_prompt, result.tokens), 0);
    // Of a chat the choices have one prompt.
    if (shape_.prompt_logprobs && shape_.api == Api::kCompletions) {
      choice["prompt_logprobs"] = PromptLogprobs(shape_, result.scored_prompt);
    }
    choice["finish_reason"] = TextOrNull(result.finish_reason);
    choice["stop_reason"] = result.stop_reason;
    choice["matched_stop"] = result.matched_stop;
    if (shape_.return_token_ids) {
      choice["token_ids"] = TokenIds(result.tokens);
      if (result.prompt_ids != nullptr) {
        (shape_.api == Api::kChat ? response : choice)["prompt_token_ids"] =
            *result.prompt_ids;
      }
    }
    list.push_back(std::move(choice));
  }
  response["choices"] = std::move(list);
  if (shape_.prompt_logprobs && shape_.api == Api::kChat) {
    response["prompt_logprobs"] =
        PromptLogprobs(shape_, choices[0].scored_prompt);
  }
  response["usage"] = UsageJson(total);
  HttpResponse http;
  http.body = DumpJson(response);
  return http;
}

}  // namespace switchyard::router
