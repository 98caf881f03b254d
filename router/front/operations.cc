#include "router/front/operations.h"

#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "base/json.h"
#include "base/version.h"
#include "router/openai/errors.h"
#include "router/page/operators_page.h"

namespace switchyard::router {
namespace {

absl::string_view StateName(AttentionWorkerInfo::State state) {
  switch (state) {
    case AttentionWorkerInfo::State::kUnreachable:
      return "unreachable";
    case AttentionWorkerInfo::State::kLoading:
      return "loading";
    case AttentionWorkerInfo::State::kReady:
      return "ready";
    case AttentionWorkerInfo::State::kWaitingExperts:
      return "waiting_experts";
    case AttentionWorkerInfo::State::kDraining:
      return "draining";
  }
  return "unknown";
}

}  // namespace

Operations::Operations(AnswerService* answers, metrics::Registry* registry,
                       std::function<std::string()> topology)
    : answers_(answers),
      registry_(registry),
      topology_(std::move(topology)),
      collector_(std::make_shared<Collector>()) {
  {
    MutexLock lock(&collector_->mutex);
    collector_->operations = this;
  }
  registry_->AddCollector([collector = collector_] {
    MutexLock lock(&collector->mutex);
    if (collector->operations != nullptr) collector->operations->CollectLoad();
  });
}

Operations::~Operations() {
  MutexLock lock(&collector_->mutex);
  collector_->operations = nullptr;
}

void Operations::CollectLoad() {
  const AnswerService::Options& options = answers_->options();
  RouterMetrics::Load load;
  load.waiting = options.admission->waiting();
  load.running = options.admission->running();
  load.waiting_tokens = options.admission->waiting_tokens();
  load.estimated_ttft =
      options.admission->estimated_ttft().value_or(absl::ZeroDuration());
  for (auto& worker : options.workers->Describe()) {
    load.workers.push_back(std::move(worker.info));
  }
  options.generation.metrics->SetLoad(load);
}

void Operations::AddRoutes(Routes* routes) {
  using Writer = std::shared_ptr<ResponseWriter>;
  for (const char* path : {"/livez", "/liveness"}) {
    routes->Add("GET", path, [](const RoutedRequest&, const Writer& writer) {
      writer->Send(JsonResponse(200, {{"status", "alive"}}));
    });
  }
  for (const char* path : {"/readyz", "/readiness", "/health"}) {
    routes->Add("GET", path,
                [this](const RoutedRequest&, const Writer& writer) {
                  HandleReadiness(writer);
                });
  }
  routes->Add("GET", "/", [](const RoutedRequest&, const Writer& writer) {
    writer->Send(OperatorsPage());
  });
  routes->Add(
      "GET", "/version", [](const RoutedRequest&, const Writer& writer) {
        writer->Send(JsonResponse(200, {{"version", std::string(kVersion)}}));
      });
  if (topology_) {
    routes->Add("GET", "/topology",
                [this](const RoutedRequest&, const Writer& writer) {
                  HttpResponse response;
                  response.body = topology_();
                  writer->Send(std::move(response));
                });
  }
  routes->Add(
      "GET", "/metrics", [this](const RoutedRequest&, const Writer& writer) {
        HttpResponse response;
        response.content_type = "text/plain; version=0.0.4; charset=utf-8";
        response.body = registry_->Expose();
        writer->Send(std::move(response));
      });
}

void Operations::HandleReadiness(
    const std::shared_ptr<ResponseWriter>& writer) {
  Json workers = Json::array();
  bool any = false;
  for (const auto& worker : answers_->options().workers->Describe()) {
    any = any || worker.not_ready.empty();
    const AttentionWorkerInfo& info = worker.info;
    workers.push_back(
        {{"name", worker.name},
         {"state", std::string(StateName(info.state))},
         {"ready", worker.not_ready.empty()},
         {"reason",
          worker.not_ready.empty() ? Json(nullptr) : Json(worker.not_ready)},
         {"loading_progress", info.loading_progress},
         {"message", info.message},
         {"model_fingerprint", info.model_fingerprint},
         {"version", info.version},
         {"running_requests", info.running_requests},
         {"waiting_requests", info.waiting_requests},
         {"in_flight_requests", worker.in_flight}});
  }
  const bool draining = answers_->options().admission->closed();
  const bool ready = any && !draining;
  HttpResponse response =
      JsonResponse(ready ? 200 : 503,
                   {{"ready", ready},
                    {"status", draining ? "shutting down"
                               : any    ? "ready"
                                     : "no attention worker can take requests"},
                    {"workers", std::move(workers)}});
  if (!ready) response.headers.emplace_back("Retry-After", "5");
  writer->Send(std::move(response));
}

}  // namespace switchyard::router
