// Anthropic's endpoints.
//
//   POST /v1/messages
//   POST /v1/messages/count_tokens
//
// Above: server.h. Below: openai/ (planner, answer_service), which does the
// work: a message is a chat in another dress.

#ifndef SWITCHYARD_ROUTER_ANTHROPIC_API_H_
#define SWITCHYARD_ROUTER_ANTHROPIC_API_H_

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
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

  // Whether the path is one of this API's, served or not.
  static bool Serves(absl::string_view path) {
    return path == "/v1/messages" || absl::StartsWith(path, "/v1/messages/");
  }

 private:
  absl::StatusOr<GenerationPlan> Plan(absl::string_view body,
                                      const PlanContext& context) const;
  absl::StatusOr<HttpResponse> CountTokens(absl::string_view body) const;

  const Planner* const planner_;
  AnswerService* const answers_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_ANTHROPIC_API_H_
