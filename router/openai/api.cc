#include "router/openai/api.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/json.h"
#include "base/log.h"
#include "base/version.h"
#include "model/sha256.h"
#include "router/openai/errors.h"

namespace switchyard::router {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr char kModelsPath[] = "/v1/models";

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

// The pattern that a path belongs to, so that metrics have few series.
absl::string_view HandlerName(const std::string& path) {
  for (const char* known :
       {"/v1/chat/completions", "/v1/completions", kModelsPath, "/health",
        "/livez", "/readyz", "/version", "/metrics", "/topology"}) {
    if (path == known) return known;
  }
  if (absl::StartsWith(path, "/v1/models/")) return "/v1/models/{id}";
  return "none";
}

absl::string_view MethodName(const std::string& method) {
  for (const char* known : {"GET", "POST", "HEAD", "OPTIONS"}) {
    if (method == known) return known;
  }
  return "other";
}

// "a%2Fb" -> "a/b"; what is no escape stays.
std::string PercentDecode(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() &&
        absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 1])) &&
        absl::ascii_isxdigit(static_cast<unsigned char>(text[i + 2]))) {
      out += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

HttpResponse JsonResponse(int status, const Json& body) {
  HttpResponse response;
  response.status = status;
  response.body = DumpJson(body);
  return response;
}

// Adds x-request-id to every answer and counts it.
class TrackedWriter final : public ResponseWriter {
 public:
  TrackedWriter(std::shared_ptr<ResponseWriter> writer, std::string request_id,
                std::function<void(int status)> on_status)
      : writer_(std::move(writer)),
        request_id_(std::move(request_id)),
        on_status_(std::move(on_status)) {}

  void Send(HttpResponse response) override {
    on_status_(response.status);
    response.headers.emplace_back("x-request-id", request_id_);
    writer_->Send(std::move(response));
  }
  void StartStream(const HttpResponse& head) override {
    on_status_(head.status);
    HttpResponse tracked = head;
    tracked.headers.emplace_back("x-request-id", request_id_);
    writer_->StartStream(tracked);
  }
  bool Write(std::string data) override {
    return writer_->Write(std::move(data));
  }
  void Finish() override { writer_->Finish(); }
  void Post(std::function<void()> function) override {
    writer_->Post(std::move(function));
  }
  void OnGone(std::function<void()> function) override {
    writer_->OnGone(std::move(function));
  }

 private:
  const std::shared_ptr<ResponseWriter> writer_;
  const std::string request_id_;
  const std::function<void(int)> on_status_;
};

void SendMethodNotAllowed(const std::string& method, const std::string& path,
                          absl::string_view allowed,
                          const std::shared_ptr<ResponseWriter>& writer) {
  HttpResponse response = ErrorResponse(HttpError(
      405, absl::StrCat(method.substr(0, 32), " is not allowed for ",
                        path.substr(0, 256), "; allowed: ", allowed)));
  response.headers.emplace_back("Allow", std::string(allowed));
  writer->Send(std::move(response));
}

}  // namespace

// A request between its acceptance and its generation.
struct OpenAiApi::Job {
  Api api;
  std::string body;
  std::string client;        // whose API key it was; "": there are none
  std::string api_key_hash;  // empty: none was sent
  std::string request_id;
  absl::Time arrival;
  int64_t max_model_len = 0;
  std::string fingerprint;
  std::unique_ptr<Admission::Ticket> ticket;
  std::shared_ptr<ResponseWriter> writer;
  bool gone = false;  // the strand's
};

OpenAiApi::OpenAiApi(Options options)
    : options_(std::move(options)),
      created_(absl::ToUnixSeconds(options_.generation.timers->Now())),
      collector_(std::make_shared<Collector>()) {
  {
    MutexLock lock(&collector_->mutex);
    collector_->api = this;
  }
  options_.registry->AddCollector([collector = collector_] {
    MutexLock lock(&collector->mutex);
    if (collector->api != nullptr) collector->api->CollectLoad();
  });
}

OpenAiApi::~OpenAiApi() {
  MutexLock lock(&collector_->mutex);
  collector_->api = nullptr;
}

void OpenAiApi::CollectLoad() {
  RouterMetrics::Load load;
  load.waiting = options_.admission->waiting();
  load.running = options_.admission->running();
  for (auto& worker : options_.workers->Describe()) {
    load.workers.push_back(std::move(worker.info));
  }
  options_.generation.metrics->SetLoad(load);
}

std::string OpenAiApi::RandomHex() {
  return absl::StrCat(absl::Hex(options_.random(), absl::kZeroPad16),
                      absl::Hex(options_.random() >> 32, absl::kZeroPad8));
}

void OpenAiApi::Handle(HttpRequest request,
                       std::shared_ptr<ResponseWriter> writer) {
  const std::string* given = request.FindHeader("x-request-id");
  const bool usable =
      given != nullptr && !given->empty() &&
      given->size() <= kMaxRequestIdBytes &&
      std::all_of(given->begin(), given->end(),
                  [](unsigned char c) { return absl::ascii_isprint(c); });
  const std::string request_id = usable ? *given : "req-" + RandomHex();
  if (request.path.size() > 1) {
    request.path = std::string(absl::StripSuffix(request.path, "/"));
  }
  auto on_status = [metrics = options_.generation.metrics,
                    timers = options_.generation.timers,
                    handler = HandlerName(request.path),
                    method = MethodName(request.method),
                    arrival = options_.generation.timers->Now()](int status) {
    metrics->OnHttpResponse(handler, method, status, timers->Now() - arrival);
  };
  // For whatever comes after this.
  for (auto& [name, value] : request.headers) {
    if (name == "x-request-id") value = request_id;
  }
  if (given == nullptr)
    request.headers.emplace_back("x-request-id", request_id);
  auto tracked = std::make_shared<TrackedWriter>(std::move(writer), request_id,
                                                 std::move(on_status));
  if (LetIn(&request, tracked)) Route(std::move(request), std::move(tracked));
}

bool OpenAiApi::LetIn(HttpRequest* request,
                      const std::shared_ptr<ResponseWriter>& writer) {
  if (options_.access == nullptr) return true;
  const AccessGuard::Decision decision =
      options_.access->Judge(request->method, request->path,
                             KeyOf(request->FindHeader("authorization"),
                                   request->FindHeader("x-api-key")));
  request->client = decision.client;
  const auto refuse = [&](int status) {
    ApiError error = HttpError(status, decision.message);
    if (decision.retry_after > absl::ZeroDuration()) {
      error.retry_after_seconds = static_cast<int>(absl::ToInt64Seconds(
          absl::Ceil(decision.retry_after, absl::Seconds(1))));
    }
    HttpResponse response = ErrorResponse(error);
    if (status == 401)
      response.headers.emplace_back("WWW-Authenticate", "Bearer");
    writer->Send(std::move(response));
    return false;
  };
  switch (decision.verdict) {
    case AccessGuard::Verdict::kWelcome:
      return true;
    case AccessGuard::Verdict::kUnauthorized:
      return refuse(401);
    case AccessGuard::Verdict::kForbidden:
      return refuse(403);
    case AccessGuard::Verdict::kTooMany:
      return refuse(429);
  }
  return false;
}

void OpenAiApi::Route(HttpRequest request,
                      std::shared_ptr<ResponseWriter> writer) {
  const std::string path = request.path;
  const absl::string_view handler = HandlerName(path);
  const bool posts =
      handler == "/v1/chat/completions" || handler == "/v1/completions";
  const absl::string_view allowed =
      posts ? "POST, OPTIONS" : "GET, HEAD, OPTIONS";
  if (request.method == "OPTIONS" && (handler != "none" || path == "*")) {
    HttpResponse response;
    response.status = 204;
    response.headers.emplace_back("Allow", std::string(allowed));
    return writer->Send(std::move(response));
  }
  if (handler == "none") {
    return writer->Send(ErrorResponse(
        HttpError(404, absl::StrCat("no such path: ", path.substr(0, 256)))));
  }
  if (posts) {
    if (request.method != "POST") {
      return SendMethodNotAllowed(request.method, path, allowed, writer);
    }
    const Api api =
        handler == "/v1/completions" ? Api::kCompletions : Api::kChat;
    return HandleGeneration(api, std::move(request), std::move(writer));
  }
  if (request.method != "GET" && request.method != "HEAD") {
    return SendMethodNotAllowed(request.method, path, allowed, writer);
  }
  RouteGet(path, writer);
}

void OpenAiApi::RouteGet(const std::string& path,
                         const std::shared_ptr<ResponseWriter>& writer) {
  if (path == "/livez") {
    return writer->Send(JsonResponse(200, {{"status", "alive"}}));
  }
  if (path == "/readyz" || path == "/health") return HandleReadiness(writer);
  if (path == "/version") {
    return writer->Send(
        JsonResponse(200, {{"version", std::string(kVersion)}}));
  }
  if (path == "/metrics") {
    HttpResponse response;
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = options_.registry->Expose();
    return writer->Send(std::move(response));
  }
  if (path == "/topology") {
    if (!options_.topology) {
      return writer->Send(ErrorResponse(HttpError(
          404, "no worker can join this router: it has no --grpc-port")));
    }
    HttpResponse response;
    response.body = options_.topology();
    return writer->Send(std::move(response));
  }
  HandleModels(path, writer);
}

void OpenAiApi::HandleModels(const std::string& path,
                             const std::shared_ptr<ResponseWriter>& writer) {
  const Json model = {{"id", options_.served_model_name},
                      {"object", "model"},
                      {"created", created_},
                      {"owned_by", "switchyard"},
                      {"root", options_.served_model_name},
                      {"parent", nullptr},
                      {"max_model_len", options_.max_model_len}};
  if (path == kModelsPath) {
    return writer->Send(JsonResponse(
        200, {{"object", "list"}, {"data", Json::array({model})}}));
  }
  const std::string id = PercentDecode(path.substr(sizeof(kModelsPath)));
  if (id == options_.served_model_name) {
    return writer->Send(JsonResponse(200, model));
  }
  ApiError error = HttpError(
      404, absl::StrCat("no model '", id.substr(0, 256), "'; this server has '",
                        options_.served_model_name, "'"));
  error.code = "model_not_found";
  error.param = "model";
  writer->Send(ErrorResponse(error));
}

bool OpenAiApi::ready() const {
  if (options_.admission->closed()) return false;
  for (const auto& worker : options_.workers->Describe()) {
    if (worker.not_ready.empty()) return true;
  }
  return false;
}

void OpenAiApi::HandleReadiness(const std::shared_ptr<ResponseWriter>& writer) {
  Json workers = Json::array();
  bool any = false;
  for (const auto& worker : options_.workers->Describe()) {
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
  const bool draining = options_.admission->closed();
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

void OpenAiApi::HandleGeneration(Api api, HttpRequest request,
                                 std::shared_ptr<ResponseWriter> writer) {
  absl::StatusOr<std::unique_ptr<Admission::Ticket>> ticket =
      options_.admission->Admit();
  if (!ticket.ok())
    return writer->Send(ErrorResponse(ToApiError(ticket.status())));
  auto job = std::make_shared<Job>();
  job->api = api;
  job->body = std::move(request.body);
  job->client = std::move(request.client);
  job->request_id = *request.FindHeader("x-request-id");
  job->arrival = options_.generation.timers->Now();
  if (const std::string* key = request.FindHeader("authorization")) {
    model::Sha256 hash;
    hash.Update(*key);
    job->api_key_hash = hash.FinishHex().substr(0, 16);
  }
  job->max_model_len = options_.max_model_len;
  job->ticket = *std::move(ticket);
  job->writer = std::move(writer);
  bool any = false;
  for (const auto& worker : options_.workers->Describe()) {
    if (!worker.not_ready.empty() && !worker.can_wait) continue;
    any = true;
    job->fingerprint = worker.info.model_fingerprint;
    if (worker.info.max_model_len > 0) {
      job->max_model_len =
          std::min(job->max_model_len, worker.info.max_model_len);
    }
  }
  if (!any) {
    // Refused before any work is done for it, with what Choose() says of each
    // worker. Only now: a choice that is not used takes another's turn.
    if (const auto worker = options_.workers->Choose(); !worker.ok()) {
      return job->writer->Send(ErrorResponse(ToApiError(worker.status())));
    }
  }
  job->writer->OnGone([weak = std::weak_ptr<Job>(job)] {
    if (auto live = weak.lock()) live->gone = true;
  });
  const int64_t bytes = static_cast<int64_t>(job->body.size());
  const absl::Status queued = options_.text_pool->Submit(bytes, [this, job] {
    auto plan = std::make_shared<absl::StatusOr<GenerationPlan>>(
        options_.planner->Plan(job->api, job->body, job->max_model_len));
    job->body = std::string();
    job->writer->Post(
        [this, job, plan] { StartGeneration(job, std::move(*plan)); });
  });
  if (!queued.ok()) job->writer->Send(ErrorResponse(ToApiError(queued)));
}

void OpenAiApi::StartGeneration(const std::shared_ptr<Job>& job,
                                absl::StatusOr<GenerationPlan> plan) {
  if (job->gone) return options_.generation.metrics->OnAborted();
  if (!plan.ok()) {
    job->ticket.reset();
    return job->writer->Send(ErrorResponse(ToApiError(plan.status())));
  }
  GenerationParams& params = plan->params;
  if (!params.has_seed) params.sampling.seed = options_.random();
  params.client = absl::StrCat(job->api_key_hash, "/", params.client);
  if (options_.access != nullptr) {
    plan->on_end = [access = options_.access, client = job->client](
                       int64_t tokens) { access->Charge(client, tokens); };
  }
  ResponseShape& shape = plan->shape;
  shape.id =
      absl::StrCat(job->api == Api::kChat ? "chatcmpl-" : "cmpl-", RandomHex());
  shape.created = absl::ToUnixSeconds(job->arrival);
  shape.model = options_.served_model_name;
  // Of the build and the weights: what a seed's meaning depends on.
  shape.system_fingerprint = absl::StrCat("switchyard-", kVersion, "-",
                                          job->fingerprint.substr(0, 12));
  const absl::Duration timeout =
      std::min(params.timeout.value_or(options_.request_timeout),
               options_.request_timeout);
  absl::Status aborted;
  uint64_t key = 0;
  {
    MutexLock lock(&mutex_);
    key = ++last_generation_;
  }
  Log(LogLevel::kDebug,
      absl::StrCat("request ", job->request_id, " is ", shape.id, ", seed ",
                   params.sampling.seed));
  auto generation = std::make_shared<Generation>(
      &options_.generation, *std::move(plan), job->arrival,
      job->arrival + timeout, std::move(job->ticket), job->writer, [this, key] {
        Active ended;  // destroyed without the lock
        MutexLock lock(&mutex_);
        ended = std::move(active_[key]);
        active_.erase(key);
      });
  {
    MutexLock lock(&mutex_);
    active_[key] = {generation, job->writer};
    aborted = aborted_;
  }
  if (!aborted.ok()) return generation->Fail(aborted);
  generation->Start();
}

void OpenAiApi::AbortAll(const absl::Status& status) {
  std::vector<Active> active;
  {
    MutexLock lock(&mutex_);
    aborted_ = status;
    for (const auto& [key, entry] : active_) active.push_back(entry);
  }
  for (const Active& entry : active) {
    entry.writer->Post(
        [generation = entry.generation, status] { generation->Fail(status); });
  }
}

}  // namespace switchyard::router
