// From a request's body to its answer, for every API: admission, the plan (on
// the text pool), the generation, and its end by others.
//
// Above: the APIs' routes give a function that plans. Below: generation.h.
// Not here: what a body means, routes.

#ifndef SWITCHYARD_ROUTER_OPENAI_ANSWER_SERVICE_H_
#define SWITCHYARD_ROUTER_OPENAI_ANSWER_SERVICE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "router/access/access_guard.h"
#include "router/admission/admission.h"
#include "router/admission/text_pool.h"
#include "router/http/http_message.h"
#include "router/openai/errors.h"
#include "router/openai/generation.h"
#include "router/openai/planner.h"
#include "router/routing/worker_pool.h"

namespace switchyard::router {

// Thread-safe. Outlives the HTTP server whose requests it answers; before it is
// destroyed, AbortAll() and the admission's WaitUntilIdle().
class AnswerService {
 public:
  struct Options {
    std::string served_model_name;
    int64_t max_model_len = 0;  // of the model; workers may allow less
    absl::Duration request_timeout =
        absl::Minutes(30);  // unless one asks for less
    // Not owned, all of them.
    WorkerPool* workers = nullptr;
    Admission* admission = nullptr;
    TextPool* text_pool = nullptr;
    AccessGuard* access = nullptr;  // is told what was used; null: nobody
    GenerationEnvironment generation;
    // Thread-safe; for ids and seeds.
    std::function<uint64_t()> random;
  };
  explicit AnswerService(Options options);

  // Both run on the text pool.
  using PlanFunction = std::function<absl::StatusOr<GenerationPlan>(
      absl::string_view body, const PlanContext& context)>;
  using TextFunction = std::function<absl::StatusOr<HttpResponse>(
      absl::string_view body, const PlanContext& context)>;
  // How this API says that a request failed before it had a plan.
  using ErrorFunction = std::function<HttpResponse(const ApiError& error)>;

  // Generates what `plan` makes of the request.
  void Answer(HttpRequest request, std::shared_ptr<ResponseWriter> writer,
              PlanFunction plan, ErrorFunction error = ErrorResponse);
  // Answers from the text alone; needs no worker.
  void Compute(HttpRequest request,
               const std::shared_ptr<ResponseWriter>& writer,
               TextFunction compute,
               const ErrorFunction& error = ErrorResponse);

  // Whether a request would find a worker now.
  bool ready() const;
  const Options& options() const { return options_; }

  // Ends the answers of this name (GenerationPlan::names) well, soon, with what
  // they have, and `reason` as the reason of their end. Returns how many.
  int Interrupt(absl::string_view name, const std::string& reason);
  int InterruptAll(const std::string& reason);
  // Ends all answers in progress with this error, soon, and those to come at
  // once.
  void AbortAll(const absl::Status& status);

 private:
  struct Job;
  struct Active {
    std::shared_ptr<Generation> generation;
    std::shared_ptr<ResponseWriter> writer;
  };

  PlanContext MakeContext();
  // With x-stream-resumable or last-event-id: ids for the events, and in the
  // context what the first router drew. INVALID_ARGUMENT: no such id, or one of
  // another request.
  static absl::Status MakeResumable(const HttpRequest& request, Job* job);
  void Start(const std::shared_ptr<Job>& job,
             absl::StatusOr<GenerationPlan>* plan);
  // Takes the plan's contents.
  void Run(const std::shared_ptr<Job>& job, GenerationPlan& plan);
  int InterruptWhere(absl::FunctionRef<bool(const Generation&)> which,
                     const std::string& reason);

  const Options options_;
  Mutex mutex_;
  uint64_t last_generation_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status aborted_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Active> active_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_ANSWER_SERVICE_H_
