// OpenAI's Responses API.
//
//   POST   /v1/responses                    create; streamed, whole or
//   background POST   /v1/responses/input_tokens       how long the prompt
//   would be GET    /v1/responses/{id}, DELETE POST   /v1/responses/{id}/cancel
//   GET    /v1/responses/{id}/input_items
//
// What is stored is kept in memory, as much as fits (response_store.h), and by
// this router alone: a conversation that goes on elsewhere brings its items.
// Above: server.h. Below: openai/ (planner, answer_service).

#ifndef SWITCHYARD_ROUTER_RESPONSES_API_H_
#define SWITCHYARD_ROUTER_RESPONSES_API_H_

#include <cstdint>
#include <memory>
#include <string>

#include "router/http/routes.h"
#include "router/openai/answer_service.h"
#include "router/openai/planner.h"
#include "router/responses/response_store.h"
#include "router/responses/responses_format.h"
#include "router/responses/responses_request.h"

namespace switchyard::router {

// Thread-safe. Outlives the HTTP server whose routes call it.
class ResponsesApi {
 public:
  // Neither is owned; both outlive this. `max_store_bytes` of stored answers.
  ResponsesApi(const Planner* planner, AnswerService* answers,
               int64_t max_store_bytes)
      : planner_(planner),
        answers_(answers),
        store_(std::make_shared<ResponseStore>(max_store_bytes)) {}

  void AddRoutes(Routes* routes);

 private:
  absl::StatusOr<ResponsesRequest> Parse(absl::string_view body) const;
  absl::StatusOr<GenerationPlan> Plan(absl::string_view body,
                                      const PlanContext& context) const;
  absl::StatusOr<HttpResponse> CountTokens(absl::string_view body) const;
  HttpResponse Get(const std::string& id) const;
  HttpResponse Delete(const std::string& id) const;
  HttpResponse Cancel(const std::string& id) const;
  HttpResponse InputItems(const RoutedRequest& request) const;

  const Planner* const planner_;
  AnswerService* const answers_;
  // Shared with answers in progress.
  const std::shared_ptr<ResponseStore> store_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_RESPONSES_API_H_
