#include "router/server.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "base/mutex.h"
#include "base/open_files.h"
#include "base/status_macros.h"
#include "model/config.h"
#include "router/access/access_guard.h"
#include "router/admission/admission.h"
#include "router/admission/text_pool.h"
#include "router/anthropic/api.h"
#include "router/anthropic/messages_format.h"
#include "router/front/front_door.h"
#include "router/front/operations.h"
#include "router/http/http_server.h"
#include "router/membership/attention_members.h"
#include "router/membership/registry.h"
#include "router/membership/topology.h"
#include "router/openai/answer_service.h"
#include "router/openai/api.h"
#include "router/openai/errors.h"
#include "router/openai/planner.h"
#include "router/openai/router_metrics.h"
#include "router/responses/api.h"
#include "router/routing/least_loaded.h"
#include "router/routing/move_costs.h"
#include "router/routing/worker_pool.h"
#include "router/service/membership_service.h"
#include "router/sglang/api.h"
#include "router/tokens/api.h"
#include "rpc/server.h"
#include "text/tokenizer.h"
#include "tracing/client/otlp_exporter.h"

namespace switchyard::router {
namespace {

// Open files beside clients' connections: to workers, listening, the model's.
constexpr int64_t kOtherFiles = 128;

constexpr int64_t kMaxConfigBytes = 16 << 20;
// After the drain: for the last bytes of answers, error events among them.
constexpr absl::Duration kFlushTime = absl::Seconds(2);
// How often the router looks at its workers even if nobody asks.
constexpr absl::Duration kWatchInterval = absl::Milliseconds(250);

// What the router knows about the model.
struct Model {
  std::string name;
  model::ModelConfig config;
  model::GenerationConfig generation;
  std::unique_ptr<text::Tokenizer> tokenizer;
  ChatFormat chat_format = ChatFormat::kInstruct;
};

std::string LastPart(absl::string_view path) {
  while (absl::ConsumeSuffix(&path, "/")) {
  }
  return std::string(path.substr(path.rfind('/') + 1));
}

absl::Status CheckTokenizer(const Model& model, const std::string& directory) {
  if (model.tokenizer->vocab_size() <= model.config.vocab_size) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      directory, ": the tokenizer has ids up to ",
      model.tokenizer->vocab_size() - 1, " (", model.tokenizer->vocab_size(),
      " with 0), but config.json's vocab_size is ", model.config.vocab_size,
      "; the files are of different models"));
}

absl::StatusOr<Model> LoadModel(const RouterServer::Options& options) {
  const std::string& directory = options.model_dir;
  if (directory.empty()) {
    return absl::InvalidArgumentError("--model is not set");
  }
  Model model;
  model.name = options.served_model_name.empty() ? LastPart(directory)
                                                 : options.served_model_name;
  const auto in = [&](const char* file) {
    return absl::StrCat(directory, "/", file);
  };
  const auto with_file = [&](const absl::Status& status, const char* file) {
    return absl::Status(
        status.code(),
        absl::StrCat(in(file), ": ", std::string(status.message())));
  };
  SY_ASSIGN_OR_RETURN(const std::string config,
                      ReadFile(in("config.json"), kMaxConfigBytes));
  absl::StatusOr<model::ModelConfig> parsed = model::ParseModelConfig(config);
  if (!parsed.ok()) return with_file(parsed.status(), "config.json");
  model.config = *std::move(parsed);

  absl::StatusOr<std::string> generation =
      ReadFile(in("generation_config.json"), kMaxConfigBytes);
  if (generation.ok()) {
    auto defaults = model::ParseGenerationConfig(*generation);
    if (!defaults.ok()) {
      return with_file(defaults.status(), "generation_config.json");
    }
    model.generation = *std::move(defaults);
  } else if (!absl::IsNotFound(generation.status())) {
    return generation.status();
  }
  SY_ASSIGN_OR_RETURN(model.tokenizer, text::Tokenizer::Load(directory));
  SY_RETURN_IF_ERROR(CheckTokenizer(model, directory));
  if (options.chat_format) {
    model.chat_format = *options.chat_format;
  } else {
    SY_ASSIGN_OR_RETURN(model.chat_format, DetectChatFormat(directory));
  }
  return model;
}

std::function<uint64_t()> MakeRandom() {
  struct Generator {
    Mutex mutex;
    absl::BitGen bits ABSL_GUARDED_BY(mutex);
  };
  return [generator = std::make_shared<Generator>()] {
    MutexLock lock(&generator->mutex);
    return absl::Uniform<uint64_t>(generator->bits);
  };
}

// The timers' time, so that a test that moves one moves both.
class TimerClock final : public Clock {
 public:
  // `*timers` is set before the first Now().
  explicit TimerClock(TimerQueue* const* timers) : timers_(timers) {}
  absl::Time Now() const override { return (*timers_)->Now(); }

 private:
  TimerQueue* const* const timers_;
};

class RouterServerImpl final : public RouterServer {
 public:
  RouterServerImpl(Options options, Model model)
      : options_(std::move(options)),
        model_(std::move(model)),
        watch_(std::make_shared<Watch>()) {
    MutexLock lock(&watch_->mutex);
    watch_->server = this;
  }
  ~RouterServerImpl() override { Shutdown(absl::ZeroDuration()); }

  absl::Status Run();

  int port() const override { return http_->port(); }
  int grpc_port() const override { return rpc_ ? rpc_->port() : -1; }
  const std::string& served_model_name() const override { return model_.name; }
  void Shutdown(absl::Duration drain) override;

 private:
  int64_t ContextLength() const {
    const int64_t most = model_.config.max_position_embeddings;
    return options_.context_length > 0 ? std::min(options_.context_length, most)
                                       : most;
  }
  absl::Status MakeParts();
  void MakeMembership();
  absl::Status MakeApis(const std::function<uint64_t()>& random);
  absl::Status StartHttp();
  absl::Status StartRpc();
  void WatchWorkers();

  const Options options_;
  const Model model_;

  // In the order of their dependencies: destroyed from the last to the first.
  std::unique_ptr<TimerQueue> own_timers_;
  std::unique_ptr<metrics::Registry> own_registry_;
  TimerQueue* timers_ = nullptr;
  metrics::Registry* registry_ = nullptr;
  std::unique_ptr<RouterMetrics> metrics_;
  LeastLoaded policy_;
  MoveCosts move_costs_;
  std::unique_ptr<WorkerPool> pool_;
  std::unique_ptr<MemberRegistry> members_;  // null: nobody can join
  std::unique_ptr<AttentionMembers> attention_members_;  // null: not used
  std::unique_ptr<MembershipService> membership_;  // null: nobody can join
  TimerClock clock_{&timers_};
  std::unique_ptr<AccessGuard> access_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<Planner> planner_;
  std::unique_ptr<TextPool> text_pool_;
  std::unique_ptr<AnswerService> answers_;
  std::unique_ptr<tracing::SpanSink> own_spans_;
  std::unique_ptr<FrontDoor> front_door_;
  std::unique_ptr<OpenAiApi> openai_;
  std::unique_ptr<AnthropicApi> anthropic_;
  std::unique_ptr<ResponsesApi> responses_;
  std::unique_ptr<SglangApi> sglang_;
  std::unique_ptr<TokensApi> tokens_;
  std::unique_ptr<Operations> operations_;
  std::unique_ptr<HttpServer> http_;

  std::unique_ptr<rpc::Server> rpc_;

  // Outlives this, for timers may fire late.
  struct Watch {
    Mutex mutex;
    RouterServerImpl* server ABSL_GUARDED_BY(mutex);  // null: stopped
  };
  std::shared_ptr<Watch> watch_;
};

absl::Status RouterServerImpl::Run() {
  SY_RETURN_IF_ERROR(MakeParts());
  SY_RETURN_IF_ERROR(StartHttp());
  SY_RETURN_IF_ERROR(StartRpc());
  WatchWorkers();
  return absl::OkStatus();
}

absl::Status RouterServerImpl::MakeParts() {
  if (options_.timers == nullptr) own_timers_ = TimerQueue::Create();
  timers_ = options_.timers != nullptr ? options_.timers : own_timers_.get();
  if (options_.registry == nullptr) {
    own_registry_ = metrics::Registry::Create();
    metrics::AddProcessMetrics(own_registry_.get(), "router");
  }
  registry_ =
      options_.registry != nullptr ? options_.registry : own_registry_.get();
  metrics_ =
      std::make_unique<RouterMetrics>(registry_, model_.name, ContextLength());

  std::vector<AttentionClient*> workers;
  for (const auto& worker : options_.workers) workers.push_back(worker.get());
  pool_ = std::make_unique<WorkerPool>(
      std::move(workers), &policy_,
      WorkerPool::Options{.worker_grace = options_.worker_grace,
                          .now = [timers = timers_] { return timers->Now(); }});
  if (options_.grpc_port >= 0) MakeMembership();
  admission_ = std::make_unique<Admission>(
      Admission::Options{.max_open = options_.max_open_requests,
                         .max_waiting_tokens = options_.max_waiting_tokens,
                         .max_ttft = options_.max_ttft,
                         .now = [timers = timers_] { return timers->Now(); }});

  Planner::Options plan;
  plan.tokenizer = model_.tokenizer.get();
  plan.chat_format = model_.chat_format;
  plan.defaults.generation = model_.generation;
  plan.defaults.vocab_size = model_.config.vocab_size;
  plan.defaults.strict = options_.strict_fields;
  const auto& eos = model_.generation.eos_token_ids.empty()
                        ? model_.config.eos_token_ids
                        : model_.generation.eos_token_ids;
  for (const int64_t id : eos) {
    plan.eos_token_ids.push_back(static_cast<int32_t>(id));
  }
  planner_ = std::make_unique<Planner>(std::move(plan));
  text_pool_ = std::make_unique<TextPool>(
      TextPool::Options{.num_threads = options_.text_threads,
                        .max_queued = options_.max_queued_texts,
                        .max_queued_bytes = 8 * options_.max_body_bytes});

  SY_ASSIGN_OR_RETURN(
      access_,
      AccessGuard::Create(
          {.api_keys = options_.api_keys,
           .admin_api_key = options_.admin_api_key,
           .key_file = options_.api_key_file,
           .limits = {.requests_per_minute = options_.requests_per_minute,
                      .tokens_per_minute = options_.tokens_per_minute},
           .clock = &clock_,
           .registry = registry_}));

  const auto random = options_.random ? options_.random : MakeRandom();
  AnswerService::Options answers;
  answers.served_model_name = model_.name;
  answers.max_model_len = ContextLength();
  answers.request_timeout = options_.request_timeout;
  answers.workers = pool_.get();
  answers.admission = admission_.get();
  answers.text_pool = text_pool_.get();
  answers.access = access_.get();
  answers.generation.workers = pool_.get();
  answers.generation.timers = timers_;
  answers.generation.metrics = metrics_.get();
  answers.generation.move_costs = &move_costs_;
  answers.generation.keep_alive_interval = options_.keep_alive_interval;
  answers.generation.failover_timeout = options_.failover_timeout;
  answers.random = random;
  answers_ = std::make_unique<AnswerService>(std::move(answers));
  SY_RETURN_IF_ERROR(MakeApis(random));
  return absl::OkStatus();
}

absl::Status RouterServerImpl::MakeApis(
    const std::function<uint64_t()>& random) {
  FrontDoor::Options front;
  front.metrics = metrics_.get();
  front.timers = timers_;
  front.random = random;
  front.access = access_.get();
  if (options_.spans == nullptr && !options_.otlp_traces_endpoint.empty()) {
    SY_ASSIGN_OR_RETURN(own_spans_,
                        tracing::NewOtlpExporter(
                            {.endpoint = options_.otlp_traces_endpoint,
                             .service_name = "switchyard-router",
                             .instance_id = absl::StrCat(absl::Hex(random())),
                             .registry = registry_}));
  }
  front.spans = options_.spans != nullptr ? options_.spans : own_spans_.get();
  front.error_response = [](absl::string_view path, const ApiError& error) {
    return AnthropicApi::Serves(path) ? AnthropicError(error)
                                      : ErrorResponse(error);
  };
  front_door_ = std::make_unique<FrontDoor>(std::move(front));
  Routes* const routes = front_door_->routes();
  const int64_t now = absl::ToUnixSeconds(timers_->Now());
  openai_ = std::make_unique<OpenAiApi>(planner_.get(), answers_.get(), now);
  openai_->AddRoutes(routes);
  anthropic_ = std::make_unique<AnthropicApi>(planner_.get(), answers_.get());
  anthropic_->AddRoutes(routes);
  responses_ = std::make_unique<ResponsesApi>(
      planner_.get(), answers_.get(), options_.max_stored_response_bytes);
  responses_->AddRoutes(routes);
  SglangApi::Options sglang;
  sglang.planner = planner_.get();
  sglang.answers = answers_.get();
  sglang.model_path = options_.model_dir;
  sglang.config = model_.config;
  sglang_ = std::make_unique<SglangApi>(std::move(sglang));
  sglang_->AddRoutes(routes);
  tokens_ = std::make_unique<TokensApi>(planner_.get(), answers_.get());
  tokens_->AddRoutes(routes);
  std::function<std::string()> topology;
  if (members_ != nullptr) {
    topology = [members = members_.get()] { return TopologyJson(*members); };
  }
  operations_ = std::make_unique<Operations>(answers_.get(), registry_,
                                             std::move(topology));
  operations_->AddRoutes(routes);
  return absl::OkStatus();
}

void RouterServerImpl::MakeMembership() {
  MemberRegistry::Options members;
  members.heartbeat = options_.member_heartbeat;
  members.lease = options_.member_lease;
  std::random_device random;
  members.router_id = absl::StrFormat("%08x%08x", random(), random());
  members_ = std::make_unique<MemberRegistry>(std::move(members));
  membership_ = MembershipService::Create({.registry = members_.get()});
  if (options_.connect_attention_worker) {
    attention_members_ = std::make_unique<AttentionMembers>(
        members_.get(), pool_.get(), options_.connect_attention_worker);
  }
  members_->SetListener([this] {
    membership_->Changed();
    if (attention_members_ != nullptr) attention_members_->Changed();
  });
}

absl::Status RouterServerImpl::StartHttp() {
  HttpServer::Options http;
  http.host = options_.host;
  http.port = options_.port;
  http.certificate_file = options_.certificate_file;
  http.private_key_file = options_.private_key_file;
  http.num_threads = options_.http_threads;
  http.max_connections = options_.max_connections;
  http.max_body_bytes = options_.max_body_bytes;
  http.max_send_buffer_bytes = options_.max_send_buffer_bytes;
  http.idle_timeout = options_.idle_timeout;
  http.read_timeout = options_.read_timeout;
  http.write_timeout = options_.write_timeout;
  http.error_body = [](int status, absl::string_view message) {
    return ErrorBody(HttpError(status, message));
  };
  http.on_error = [metrics = metrics_.get()](int status) {
    metrics->OnHttpResponse("none", "other", status, absl::ZeroDuration());
  };
  SY_ASSIGN_OR_RETURN(
      http_, HttpServer::Start(
                 std::move(http), [front = front_door_.get()](
                                      HttpRequest request,
                                      std::shared_ptr<ResponseWriter> writer) {
                   front->Handle(std::move(request), std::move(writer));
                 }));
  return absl::OkStatus();
}

absl::Status RouterServerImpl::StartRpc() {
  if (options_.grpc_port < 0) return absl::OkStatus();
  grpc::Service* const services[] = {membership_->grpc_service()};
  SY_ASSIGN_OR_RETURN(
      rpc_, rpc::Server::Start(options_.host, options_.grpc_port, services));
  return absl::OkStatus();
}

void RouterServerImpl::WatchWorkers() {
  // Also lets the pool see them, which is to know when one was ready last.
  const bool ready = answers_->ready();
  if (rpc_ != nullptr) rpc_->SetServing(ready);
  timers_->RunAt(timers_->Now() + kWatchInterval, [watch = watch_] {
    MutexLock lock(&watch->mutex);
    if (watch->server != nullptr) watch->server->WatchWorkers();
  });
}

void RouterServerImpl::Shutdown(absl::Duration drain) {
  {
    MutexLock lock(&watch_->mutex);
    if (std::exchange(watch_->server, nullptr) == nullptr) return;
  }
  if (http_ == nullptr) return;  // it never started
  if (rpc_ != nullptr) rpc_->SetServing(false);
  if (membership_ != nullptr) membership_->Close();
  admission_->Close();
  if (!admission_->WaitUntilIdle(absl::Now() + drain)) {
    LogWarning(absl::StrCat(
        "shutting down: ", admission_->waiting() + admission_->running(),
        " requests were not finished within ", absl::FormatDuration(drain)));
    answers_->AbortAll(
        absl::UnavailableError("the server is shutting down and the request "
                               "was not finished in time"));
    admission_->WaitUntilIdle(absl::Now() + kFlushTime);
  }
  text_pool_->Stop();
  http_->Shutdown(kFlushTime);
  if (rpc_ != nullptr) rpc_->Shutdown(absl::ZeroDuration());
}

absl::Status CheckOptions(const RouterServer::Options& options) {
  if (options.workers.empty() &&
      (options.grpc_port < 0 || !options.connect_attention_worker)) {
    return absl::InvalidArgumentError(
        "the router has no attention worker: set --attention-workers, or "
        "--grpc-port for workers that join");
  }
  if (options.member_heartbeat < absl::Milliseconds(1) ||
      options.member_lease <= options.member_heartbeat ||
      options.member_lease > absl::Hours(1)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "members report every ", absl::FormatDuration(options.member_heartbeat),
        " for a lease of ", absl::FormatDuration(options.member_lease),
        ": at least 1 ms, and the lease longer, up to an hour"));
  }
  if (options.text_threads < 1 || options.max_open_requests < 1 ||
      options.max_queued_texts < 1 || options.context_length < 0 ||
      options.max_waiting_tokens < 0 ||
      options.max_ttft < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        "threads and limits must be positive (context length: 0 or more)");
  }
  if (options.request_timeout <= absl::ZeroDuration() ||
      options.keep_alive_interval <= absl::ZeroDuration() ||
      options.failover_timeout < absl::ZeroDuration() ||
      options.worker_grace < absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        "timeouts must be positive (failover timeout, worker grace: 0 or "
        "more)");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RouterServer>> RouterServer::Start(
    Options options) {
  SY_RETURN_IF_ERROR(CheckOptions(options));
  if (const int64_t files = RaiseOpenFileLimit();
      files < options.max_connections + kOtherFiles) {
    LogWarning(absl::StrCat("this process may have ", files,
                            " files open, too few for ",
                            options.max_connections,
                            " connections: raise its limit (ulimit -Hn) or "
                            "lower --max-connections"));
  }
  SY_ASSIGN_OR_RETURN(Model model, LoadModel(options));
  auto server =
      std::make_unique<RouterServerImpl>(std::move(options), std::move(model));
  SY_RETURN_IF_ERROR(server->Run());
  return server;
}

}  // namespace switchyard::router
