#include "router/tokens/api.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "router/openai/errors.h"
#include "router/openai/field_reader.h"
#include "router/openai/request.h"
#include "router/openai/sampling_fields.h"

namespace switchyard::router {
namespace {

using Writer = std::shared_ptr<ResponseWriter>;

Json TokenTexts(const text::Tokenizer& tokenizer,
                const std::vector<int32_t>& ids) {
  Json texts = Json::array();
  for (const int32_t id : ids) {
    texts.push_back(tokenizer.Decode({id}, /*skip_special_tokens=*/false));
  }
  return texts;
}

}  // namespace

void TokensApi::AddRoutes(Routes* routes) {
  for (const auto& [path, compute] :
       {std::pair("/tokenize", &TokensApi::Tokenize),
        std::pair("/v1/tokenize", &TokensApi::Tokenize),
        std::pair("/detokenize", &TokensApi::Detokenize),
        std::pair("/v1/detokenize", &TokensApi::Detokenize)}) {
    routes->Add(
        "POST", path,
        [this, compute = compute](RoutedRequest request, Writer writer) {
          answers_->Compute(std::move(request.http), std::move(writer),
                            [this, compute](absl::string_view body,
                                            const PlanContext& context) {
                              return (this->*compute)(body, context);
                            });
        });
  }
}

absl::StatusOr<HttpResponse> TokensApi::Tokenize(
    absl::string_view body, const PlanContext& context) const {
  const text::Tokenizer& tokenizer = *planner_->options().tokenizer;
  SY_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  FieldReader reader(json);
  const bool texts = reader.Bool("return_token_strs").value_or(false);
  SY_RETURN_IF_ERROR(reader.status());
  const Json* prompt = reader.Find("prompt");
  if (prompt == nullptr) prompt = reader.Find("content");  // llama.cpp's name
  if (prompt != nullptr && prompt->is_array()) {
    Json lists = Json::array(), counts = Json::array();
    for (const Json& text : *prompt) {
      if (!text.is_string()) {
        return ParamError("prompt", "must be a string or a list of strings");
      }
      lists.push_back(tokenizer.Encode(text.get_ref<const std::string&>()));
      counts.push_back(lists.back().size());
    }
    return JsonResponse(200, {{"tokens", std::move(lists)},
                              {"count", std::move(counts)},
                              {"max_model_len", context.max_model_len}});
  }
  std::vector<int32_t> ids;
  if (prompt != nullptr) {
    if (!prompt->is_string()) {
      return ParamError("prompt", "must be a string or a list of strings");
    }
    ids = tokenizer.Encode(prompt->get_ref<const std::string&>());
  } else if (json.contains("messages")) {
    SY_ASSIGN_OR_RETURN(const ChatRequest chat,
                        ParseChatRequest(json, planner_->options().defaults));
    SY_ASSIGN_OR_RETURN(ids, planner_->ChatTokens(chat));
  } else {
    return ParamError("prompt", "give either prompt or messages");
  }
  return JsonResponse(200, {{"tokens", ids},
                            {"count", ids.size()},
                            {"max_model_len", context.max_model_len},
                            {"token_strs", texts ? TokenTexts(tokenizer, ids)
                                                 : Json(nullptr)}});
}

absl::StatusOr<HttpResponse> TokensApi::Detokenize(absl::string_view body,
                                                   const PlanContext&) const {
  const text::Tokenizer& tokenizer = *planner_->options().tokenizer;
  const int64_t vocab_size = planner_->options().defaults.vocab_size;
  SY_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  FieldReader reader(json);
  const Json* tokens = reader.Find("tokens");
  // vLLM shows special tokens, SGLang hides them unless told.
  const bool skip = reader.Bool("skip_special_tokens").value_or(false);
  SY_RETURN_IF_ERROR(reader.status());
  if (tokens == nullptr || !tokens->is_array()) {
    return ParamError("tokens",
                      "must be a list of token ids, or of such lists");
  }
  if (!tokens->empty() && (*tokens)[0].is_array()) {
    Json texts = Json::array();
    for (size_t i = 0; i < tokens->size(); ++i) {
      const std::string path = absl::StrCat("tokens[", i, "]");
      if (!(*tokens)[i].is_array()) {
        return ParamError(path, "must be a list of token ids");
      }
      SY_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                          ParseTokenIds((*tokens)[i], path, vocab_size));
      texts.push_back(tokenizer.Decode(ids, skip));
    }
    return JsonResponse(200, {{"text", texts}, {"prompt", texts}});
  }
  SY_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                      ParseTokenIds(*tokens, "tokens", vocab_size));
  const std::string text = tokenizer.Decode(ids, skip);
  return JsonResponse(200, {{"text", text}, {"prompt", text}});
}

}  // namespace switchyard::router
