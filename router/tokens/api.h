// Text to tokens and back, without a model: what SGLang, vLLM and llama.cpp
// have.
//
//   POST /tokenize, /v1/tokenize       {"prompt": text or list} or a chat's
//                                      {"messages": ..., "tools": ...}
//   POST /detokenize, /v1/detokenize   {"tokens": ids or lists of ids}
//
// Above: server.h. Below: planner.h (on the text pool).

#ifndef SWITCHYARD_ROUTER_TOKENS_API_H_
#define SWITCHYARD_ROUTER_TOKENS_API_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "router/http/routes.h"
#include "router/openai/answer_service.h"
#include "router/openai/planner.h"

namespace switchyard::router {

// Thread-safe. Outlives the HTTP server whose routes call it.
class TokensApi {
 public:
  // Neither is owned; both outlive this.
  TokensApi(const Planner* planner, AnswerService* answers)
      : planner_(planner), answers_(answers) {}

  void AddRoutes(Routes* routes);

 private:
  absl::StatusOr<HttpResponse> Tokenize(absl::string_view body,
                                        const PlanContext& context) const;
  absl::StatusOr<HttpResponse> Detokenize(absl::string_view body,
                                          const PlanContext& context) const;

  const Planner* const planner_;
  AnswerService* const answers_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TOKENS_API_H_
