// SGLang's native endpoints, for its frontend language, its benchmarks and
// trainers that speak it.
//
//   POST /generate
//   GET  /get_model_info, /model_info, /get_server_info, /server_info
//   GET  /get_load, /v1/loads
//   GET, POST /flush_cache   400 while there are requests
//   POST /abort_request
//   GET  /health_generate     200 when a token could really be made
//   POST /separate_reasoning, /parse_function_call
//
// Above: server.h. Below: planner.h (on the text pool), answer_service.h.
// Not here: /tokenize (router/text_api).

#ifndef SWITCHYARD_ROUTER_SGLANG_API_H_
#define SWITCHYARD_ROUTER_SGLANG_API_H_

#include <cstdint>
#include <memory>
#include <string>

#include "model/config.h"
#include "router/http/routes.h"
#include "router/openai/answer_service.h"
#include "router/openai/planner.h"

namespace switchyard::router {

// Thread-safe. Outlives the HTTP server whose routes call it.
class SglangApi {
 public:
  struct Options {
    const Planner* planner = nullptr;  // not owned, like the next
    AnswerService* answers = nullptr;
    // Clients choose a chat template by it.
    std::string model_path;
    model::ModelConfig config;
  };
  explicit SglangApi(Options options) : options_(std::move(options)) {}

  void AddRoutes(Routes* routes);

 private:
  absl::StatusOr<GenerationPlan> PlanGenerate(absl::string_view body,
                                              const PlanContext& context) const;
  absl::StatusOr<GenerationPlan> PlanHealth(const PlanContext& context) const;
  absl::StatusOr<HttpResponse> SeparateReasoning(absl::string_view body) const;
  absl::StatusOr<HttpResponse> ParseFunctionCall(absl::string_view body) const;
  void FlushCache(const std::shared_ptr<ResponseWriter>& writer) const;
  HttpResponse Abort(const HttpRequest& request) const;
  Json ModelInfo() const;
  Json ServerInfo() const;
  Json Loads() const;

  const Options options_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_SGLANG_API_H_
