// What operators, orchestrators and load balancers ask for.
//
//   GET /livez, /liveness    200 while the process lives
//   GET /readyz, /readiness, /health   200 when a worker can take requests,
//                 else 503; the body says of every worker how it is, and what
//                 it is waiting for
//   GET /topology   the members that have joined, and who holds what
//   GET /version, /metrics

#ifndef SWITCHYARD_ROUTER_FRONT_OPERATIONS_H_
#define SWITCHYARD_ROUTER_FRONT_OPERATIONS_H_

#include <functional>
#include <memory>
#include <string>

#include "base/mutex.h"
#include "metrics/registry.h"
#include "router/http/routes.h"
#include "router/openai/answer_service.h"

namespace switchyard::router {

// Thread-safe. Outlives the HTTP server whose routes call it.
class Operations {
 public:
  // Neither is owned; both outlive this. `topology` makes the body of
  // /topology, is thread-safe, and null if nobody can join.
  Operations(AnswerService* answers, metrics::Registry* registry,
             std::function<std::string()> topology);
  ~Operations();
  Operations(const Operations&) = delete;
  Operations& operator=(const Operations&) = delete;

  void AddRoutes(Routes* routes);

 private:
  void HandleReadiness(const std::shared_ptr<ResponseWriter>& writer);
  void CollectLoad();

  AnswerService* const answers_;
  metrics::Registry* const registry_;
  const std::function<std::string()> topology_;

  // Stays with the registry, which may outlive this.
  struct Collector {
    Mutex mutex;
    Operations* operations ABSL_GUARDED_BY(mutex) = nullptr;
  };
  const std::shared_ptr<Collector> collector_;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_FRONT_OPERATIONS_H_
