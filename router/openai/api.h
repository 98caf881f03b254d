// The router's HTTP endpoints: OpenAI's, and those that operators need.
//
//   POST /v1/chat/completions, /v1/completions
//   GET  /v1/models, /v1/models/{id}, /version, /metrics
//   GET  /topology   the members that have joined, and who holds what
//   GET  /livez   200 while the process lives
//   GET  /readyz, /health   200 when a worker can take requests, else 503; the
//   body
//                 says of every worker how it is, and what it is waiting for
//
// Above: server.h. Below: planner.h (on the text pool), generation.h.

#ifndef SWITCHYARD_ROUTER_OPENAI_API_H_
#define SWITCHYARD_ROUTER_OPENAI_API_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "metrics/registry.h"
#include "router/access/access_guard.h"
#include "router/admission/admission.h"
#include "router/admission/text_pool.h"
#include "router/http/http_message.h"
#include "router/openai/generation.h"
#include "router/openai/planner.h"
#include "router/openai/router_metrics.h"
#include "router/routing/worker_pool.h"

namespace switchyard::router {

// Thread-safe. Outlives the HTTP server that calls it; before it is destroyed,
// AbortAll() and the admission's WaitUntilIdle().
class OpenAiApi {
 public:
  struct Options {
    std::string served_model_name;
    int64_t max_model_len = 0;  // of the model; workers may allow less
    absl::Duration request_timeout =
        absl::Minutes(30);  // unless one asks for less
    // Not owned, all of them.
    const Planner* planner = nullptr;
    WorkerPool* workers = nullptr;
    Admission* admission = nullptr;
    TextPool* text_pool = nullptr;
    AccessGuard* access = nullptr;  // null: everybody is welcome
    metrics::Registry* registry = nullptr;
    GenerationEnvironment generation;
    // Thread-safe; for ids and seeds.
    std::function<uint64_t()> random;
    // The body of /topology, thread-safe; null: nobody can join.
    std::function<std::string()> topology;
  };

  explicit OpenAiApi(Options options);
  ~OpenAiApi();
  OpenAiApi(const OpenAiApi&) = delete;
  OpenAiApi& operator=(const OpenAiApi&) = delete;

  // The HTTP server's handler.
  void Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer);

  // Whether a request would find a worker now.
  bool ready() const;

  // Ends all answers in progress with this error, soon, and those to come at
  // once.
  void AbortAll(const absl::Status& status);

 private:
  struct Job;

  // False: the request is answered already, with a refusal.
  bool LetIn(HttpRequest* request,
             const std::shared_ptr<ResponseWriter>& writer);
  void Route(HttpRequest request, std::shared_ptr<ResponseWriter> writer);
  void RouteGet(const std::string& path,
                const std::shared_ptr<ResponseWriter>& writer);
  void HandleModels(const std::string& path,
                    const std::shared_ptr<ResponseWriter>& writer);
  void HandleReadiness(const std::shared_ptr<ResponseWriter>& writer);
  void HandleGeneration(Api api, HttpRequest request,
                        std::shared_ptr<ResponseWriter> writer);
  void StartGeneration(const std::shared_ptr<Job>& job,
                       absl::StatusOr<GenerationPlan> plan);
  void CollectLoad();
  std::string RandomHex();

  const Options options_;
  const int64_t created_;

  // Stays with the registry, which may outlive this.
  struct Collector {
    Mutex mutex;
    OpenAiApi* api ABSL_GUARDED_BY(mutex) = nullptr;
  };
  const std::shared_ptr<Collector> collector_;

  Mutex mutex_;
  uint64_t last_generation_ ABSL_GUARDED_BY(mutex_) = 0;
  struct Active {
    std::shared_ptr<Generation> generation;
    std::shared_ptr<ResponseWriter> writer;
  };
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Active> active_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_API_H_
