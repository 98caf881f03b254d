// Anthropic's endpoints.
//
//   POST /v1/messages
//   POST /v1/messages/count_tokens
//
// Above: server.h. Below: openai/ (planner, answer_service), which does the
// work: a message is a chat in another dress.

#ifndef SWITCHYARD_ROUTER_ANTHROPIC_API_H_
#define SWITCHYARD_ROUTER_ANTHROPIC_API_H_

#include "router/http/routes.h"
#include "router/openai/answer_service.h"
#include "router/openai/planner.h"

namespace switchyard::router {

// Thread-safe. Outlives the HTTP server whose routes call it.
class AnthropicApi {
 public:
  // Neither is owned; both outlive this.
  AnthropicApi(const Planner* planner, AnswerService* answers)
      : planner_(planner), answers_(answers) {}

  void AddRoutes(Routes* routes);

 private:
  absl::StatusOr<GenerationPlan> Plan(absl::string_view body,
                                      const PlanContext& context) const;
  absl::StatusOr<HttpResponse> CountTokens(absl::string_view body) const;

  const Planner* const planner_;
  AnswerService* const answers_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ANTHROPIC_API_H_
