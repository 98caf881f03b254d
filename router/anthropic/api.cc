#include "router/anthropic/api.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/anthropic/messages_format.h"
#include "router/anthropic/messages_request.h"
#include "router/openai/errors.h"
#include "router/openai/request.h"

namespace switchyard::router {

void AnthropicApi::AddRoutes(Routes* routes) {
  using Writer = std::shared_ptr<ResponseWriter>;
  routes->Add("POST", "/v1/messages",
              [this](RoutedRequest request, Writer writer) {
                answers_->Answer(
                    std::move(request.http), std::move(writer),
                    [this](absl::string_view body, const PlanContext& context) {
                      return Plan(body, context);
                    },
                    AnthropicError);
              });
  routes->Add("POST", "/v1/messages/count_tokens",
              [this](RoutedRequest request, Writer writer) {
                answers_->Compute(
                    std::move(request.http), std::move(writer),
                    [this](absl::string_view body, const PlanContext&) {
                      return CountTokens(body);
                    },
                    AnthropicError);
              });
}

absl::StatusOr<GenerationPlan> AnthropicApi::Plan(
    absl::string_view body, const PlanContext& context) const {
  SY_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  SY_ASSIGN_OR_RETURN(const Json chat,
                      ChatFromMessages(json, /*counting=*/false));
  SY_ASSIGN_OR_RETURN(ChatRequest request,
                      ParseChatRequest(chat, planner_->options().defaults));
  request.params.n = 1;
  if (request.params.prompt_logprobs) {
    return ParamError("prompt_logprobs", "is not supported by this API");
  }
  SY_ASSIGN_OR_RETURN(
      GenerationPlan plan,
      planner_->PlanChat(std::move(request), context, "messages"));
  const std::string id = absl::StrCat("msg_", context.id);
  plan.id = id;
  plan.names = {id};
  plan.format = std::make_unique<AnthropicFormat>(id, context.model);
  return plan;
}

absl::StatusOr<HttpResponse> AnthropicApi::CountTokens(
    absl::string_view body) const {
  SY_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  SY_ASSIGN_OR_RETURN(const Json chat,
                      ChatFromMessages(json, /*counting=*/true));
  SY_ASSIGN_OR_RETURN(const ChatRequest request,
                      ParseChatRequest(chat, planner_->options().defaults));
  SY_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                      planner_->ChatTokens(request));
  return JsonResponse(200, {{"input_tokens", ids.size()}});
}

}  // namespace switchyard::router
