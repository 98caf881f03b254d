#include "router/openai/api.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "router/openai/errors.h"

namespace switchyard::router {

void OpenAiApi::AddRoutes(Routes* routes) {
  for (const auto& [path, api] :
       {std::pair("/v1/chat/completions", Api::kChat),
        std::pair("/v1/completions", Api::kCompletions)}) {
    routes->Add("POST", path,
                [this, api = api](RoutedRequest request,
                                  std::shared_ptr<ResponseWriter> writer) {
                  HandleGeneration(api, std::move(request), std::move(writer));
                });
  }
  routes->Add(
      "POST", "/v1/chat/completions/input_tokens",
      [this](RoutedRequest request, std::shared_ptr<ResponseWriter> writer) {
        answers_->Compute(
            std::move(request.http), std::move(writer),
            [this](absl::string_view body,
                   const PlanContext&) -> absl::StatusOr<HttpResponse> {
              SY_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
              SY_ASSIGN_OR_RETURN(
                  const ChatRequest chat,
                  ParseChatRequest(json, planner_->options().defaults));
              SY_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                                  planner_->ChatTokens(chat));
              return JsonResponse(200,
                                  {{"object", "chat.completion.input_tokens"},
                                   {"input_tokens", ids.size()}});
            });
      });
  for (const char* path : {"/v1/models", "/v1/models/{id...}"}) {
    routes->Add(
        "GET", path,
        [this](RoutedRequest request, std::shared_ptr<ResponseWriter> writer) {
          HandleModels(request, writer);
        });
  }
}

void OpenAiApi::HandleGeneration(Api api, RoutedRequest request,
                                 std::shared_ptr<ResponseWriter> writer) {
  answers_->Answer(
      std::move(request.http), std::move(writer),
      [this, api](absl::string_view body, const PlanContext& context) {
        return planner_->Plan(api, body, context);
      });
}

void OpenAiApi::HandleModels(const RoutedRequest& request,
                             const std::shared_ptr<ResponseWriter>& writer) {
  const std::string& served = answers_->options().served_model_name;
  const Json model = {{"id", served},
                      {"object", "model"},
                      {"created", created_},
                      {"owned_by", "switchyard"},
                      {"root", served},
                      {"parent", nullptr},
                      {"max_model_len", answers_->options().max_model_len}};
  if (request.variables.empty()) {
    return writer->Send(JsonResponse(
        200, {{"object", "list"}, {"data", Json::array({model})}}));
  }
  const std::string& id = request.variables[0];
  if (id == served) return writer->Send(JsonResponse(200, model));
  ApiError error =
      HttpError(404, absl::StrCat("no model '", id.substr(0, 256),
                                  "'; this server has '", served, "'"));
  error.code = "model_not_found";
  error.param = "model";
  writer->Send(ErrorResponse(error));
}

}  // namespace switchyard::router
