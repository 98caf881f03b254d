// OpenAI's endpoints for text.
//
//   POST /v1/chat/completions, /v1/completions
//   POST /v1/chat/completions/input_tokens   how long the prompt would be
//   GET  /v1/models, /v1/models/{id}
//
// Above: server.h. Below: planner.h (on the text pool), answer_service.h.

#ifndef SWITCHYARD_ROUTER_OPENAI_API_H_
#define SWITCHYARD_ROUTER_OPENAI_API_H_

#include <cstdint>
#include <memory>
#include <string>

#include "router/http/routes.h"
#include "router/openai/answer_service.h"
#include "router/openai/planner.h"

namespace switchyard::router {

// Thread-safe. Outlives the HTTP server whose routes call it.
class OpenAiApi {
 public:
  // Neither is owned; both outlive this. `created`: of the model, Unix seconds.
  OpenAiApi(const Planner* planner, AnswerService* answers, int64_t created)
      : planner_(planner), answers_(answers), created_(created) {}

  void AddRoutes(Routes* routes);

 private:
  void HandleGeneration(Api api, RoutedRequest request,
                        std::shared_ptr<ResponseWriter> writer);
  void HandleModels(const RoutedRequest& request,
                    const std::shared_ptr<ResponseWriter>& writer);

  const Planner* const planner_;
  AnswerService* const answers_;
  const int64_t created_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_API_H_
