#include "router/sglang/api.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "router/openai/chat_messages.h"
#include "router/openai/errors.h"
#include "router/openai/field_reader.h"
#include "router/sglang/generate_format.h"
#include "router/sglang/generate_request.h"
#include "router/text/output_parser.h"

namespace switchyard::router {
namespace {

using Writer = std::shared_ptr<ResponseWriter>;

constexpr absl::Duration kHealthTimeout = absl::Seconds(20);

// /health_generate: only whether it went well.
class HealthFormat final : public AnswerFormat {
 public:
  std::string Update(const ChoiceUpdate&, absl::FunctionRef<Usage()>) override {
    return "";
  }
  std::string End(const Usage&) override { return ""; }
  std::string StreamedError(const ApiError&) override { return ""; }
  HttpResponse Whole(absl::Span<const ChoiceResult>, const Usage&) override {
    return JsonResponse(200, {{"status", "ok"}});
  }
  HttpResponse Error(const ApiError& error) const override {
    ApiError unhealthy = error;
    unhealthy.http_status = 503;
    return ErrorResponse(unhealthy);
  }
};

}  // namespace

void SglangApi::AddRoutes(Routes* routes) {
  AnswerService* const answers = options_.answers;
  routes->Add("POST", "/generate",
              [this, answers](RoutedRequest request, Writer writer) {
                answers->Answer(
                    std::move(request.http), std::move(writer),
                    [this](absl::string_view body, const PlanContext& context) {
                      return PlanGenerate(body, context);
                    });
              });
  routes->Add("GET", "/health_generate",
              [this, answers](RoutedRequest request, Writer writer) {
                answers->Answer(
                    std::move(request.http), std::move(writer),
                    [this](absl::string_view, const PlanContext& context) {
                      return PlanHealth(context);
                    });
              });
  for (const auto& [path, make] :
       {std::pair("/get_model_info", &SglangApi::ModelInfo),
        std::pair("/model_info", &SglangApi::ModelInfo),
        std::pair("/get_server_info", &SglangApi::ServerInfo),
        std::pair("/server_info", &SglangApi::ServerInfo),
        std::pair("/v1/loads", &SglangApi::Loads)}) {
    routes->Add(
        "GET", path,
        [this, make = make](const RoutedRequest&, const Writer& writer) {
          writer->Send(JsonResponse(200, (this->*make)()));
        });
  }
  // What older routers poll: one entry for the whole of us.
  routes->Add(
      "GET", "/get_load", [this](const RoutedRequest&, const Writer& writer) {
        const Json total = Loads()["aggregate"];
        writer->Send(JsonResponse(
            200,
            Json::array({{{"dp_rank", 0},
                          {"num_reqs", total["total_reqs"]},
                          {"num_waiting_reqs", total["total_waiting_reqs"]},
                          {"num_tokens", 0}}})));
      });
  for (const char* path : {"/start_profile", "/stop_profile"}) {
    for (const char* method : {"GET", "POST"}) {
      routes->Add(method, path, [](const RoutedRequest&, const Writer& writer) {
        writer->Send(ErrorResponse(
            HttpError(404,
                      "this server writes no profiles: /metrics has the time "
                      "of each part "
                      "of a step, and --otlp-traces-endpoint sends traces")));
      });
    }
  }
  for (const char* method : {"GET", "POST"}) {
    routes->Add(method, "/flush_cache",
                [this](const RoutedRequest&, const Writer& writer) {
                  FlushCache(writer);
                });
  }
  routes->Add("POST", "/abort_request",
              [this](const RoutedRequest& request, const Writer& writer) {
                writer->Send(Abort(request.http));
              });
  for (const auto& [path, compute] :
       {std::pair("/separate_reasoning", &SglangApi::SeparateReasoning),
        std::pair("/parse_function_call", &SglangApi::ParseFunctionCall)}) {
    routes->Add("POST", path,
                [this, answers, compute = compute](RoutedRequest request,
                                                   Writer writer) {
                  answers->Compute(std::move(request.http), std::move(writer),
                                   [this, compute](absl::string_view body,
                                                   const PlanContext&) {
                                     return (this->*compute)(body);
                                   });
                });
  }
}

absl::StatusOr<GenerationPlan> SglangApi::PlanGenerate(
    absl::string_view body, const PlanContext& context) const {
  SY_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  SY_ASSIGN_OR_RETURN(
      SglangRequest request,
      ParseSglangRequest(json, options_.planner->options().defaults));
  const int n = request.completion.params.n;
  const size_t choices =
      request.completion.prompts.size() * static_cast<size_t>(n);
  SY_ASSIGN_OR_RETURN(GenerationPlan plan,
                      options_.planner->PlanPrompts(
                          std::move(request.completion), context,
                          json.contains("text") ? "text" : "input_ids"));
  plan.want_tokens = true;
  plan.prompt_logprobs_from = request.logprob_start;
  plan.names = request.rids;
  SglangFormat::Options format;
  for (size_t i = 0; i < choices; ++i) {
    std::string id = request.rids.empty()
                         ? plan.id
                         : request.rids[i / static_cast<size_t>(n)];
    if (request.rids.empty() ? choices > 1 : n > 1)
      absl::StrAppend(&id, "_", i);
    format.ids.push_back(std::move(id));
  }
  if (plan.names.empty()) plan.names = format.ids;
  format.list = request.batch || choices > 1;
  format.return_logprob = request.return_logprob;
  format.text_in_logprobs = request.text_in_logprobs;
  format.top_logprobs = plan.params.top_logprobs;
  format.tokenizer = options_.planner->options().tokenizer;
  plan.format = std::make_unique<SglangFormat>(std::move(format));
  return plan;
}

absl::StatusOr<GenerationPlan> SglangApi::PlanHealth(
    const PlanContext& context) const {
  CompletionRequest request;
  request.prompts.emplace_back(std::vector<int32_t>{0});
  request.params.max_tokens = 1;
  request.params.sampling.temperature = 0;
  request.params.timeout = kHealthTimeout;
  SY_ASSIGN_OR_RETURN(
      GenerationPlan plan,
      options_.planner->PlanPrompts(std::move(request), context, "health"));
  plan.format = std::make_unique<HealthFormat>();
  return plan;
}

absl::StatusOr<HttpResponse> SglangApi::SeparateReasoning(
    absl::string_view body) const {
  SY_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  FieldReader reader(json);
  const auto text = reader.String("text");
  const std::string parser = reader.String("reasoning_parser").value_or("");
  SY_RETURN_IF_ERROR(reader.status());
  if (!text) return ParamError("text", "is missing");
  OutputSyntax syntax;
  // By the name: was <think> opened by the prompt?
  const bool opened =
      parser == "qwen3-thinking" || parser == "deepseek-r1" ||
      (parser.empty() &&
       options_.planner->options().chat_format == ChatFormat::kThinking);
  syntax.thinking =
      opened ? OutputSyntax::Thinking::kOpened : OutputSyntax::Thinking::kMaybe;
  ParsedMessage message = ParseOutput(syntax, *text);
  return JsonResponse(200, {{"text", std::move(message.content)},
                            {"reasoning_text", std::move(message.reasoning)}});
}

absl::StatusOr<HttpResponse> SglangApi::ParseFunctionCall(
    absl::string_view body) const {
  SY_ASSIGN_OR_RETURN(const Json json, ParseBody(body));
  FieldReader reader(json);
  const auto text = reader.String("text");
  const std::string parser = reader.String("tool_call_parser").value_or("");
  const Json* tools = reader.Find("tools");
  SY_RETURN_IF_ERROR(reader.status());
  if (!text) return ParamError("text", "is missing");
  OutputSyntax syntax;
  SY_ASSIGN_OR_RETURN(syntax.tools,
                      NormaliseTools(tools == nullptr ? Json() : *tools));
  const bool xml = parser == "qwen3_coder" || parser == "qwen3_xml" ||
                   (parser.empty() && options_.planner->options().chat_format ==
                                          ChatFormat::kCoder);
  syntax.tool_calls = xml ? ToolCallSyntax::kXml : ToolCallSyntax::kJson;
  ParsedMessage message = ParseOutput(syntax, *text);
  Json calls = Json::array();
  for (ToolCall& call : message.tool_calls) {
    // tool_index: which of the request's tools.
    int index = -1;
    for (size_t i = 0; i < syntax.tools.size(); ++i) {
      if (syntax.tools[i]["function"]["name"] == call.name) {
        index = static_cast<int>(i);
      }
    }
    calls.push_back({{"tool_index", index},
                     {"name", std::move(call.name)},
                     {"parameters", std::move(call.arguments)}});
  }
  return JsonResponse(200, {{"normal_text", std::move(message.content)},
                            {"calls", std::move(calls)}});
}

void SglangApi::FlushCache(const Writer& writer) const {
  const AnswerService::Options& answers = options_.answers->options();
  const int64_t open =
      answers.admission->running() + answers.admission->waiting();
  if (open > 0) {
    return writer->Send(ErrorResponse(HttpError(
        400, absl::StrCat("the cache is in use: ", open,
                          " requests wait or run; try again when they are "
                          "done"))));
  }
  // The last reference answers, when every worker has said something.
  struct Flush {
    explicit Flush(Writer client) : writer(std::move(client)) {}
    ~Flush() {
      MutexLock lock(&mutex);
      HttpResponse response =
          JsonResponse(200, {{"message", "Cache flushed."}});
      if (!failure.ok()) {
        ApiError error = ToApiError(failure);
        if (absl::IsFailedPrecondition(failure)) error.http_status = 400;
        response = ErrorResponse(error);
      }
      // On the strand: there, whoever drops the writer last does so behind.
      writer->Post([writer = writer, response] { writer->Send(response); });
    }
    const Writer writer;
    Mutex mutex;
    absl::Status failure ABSL_GUARDED_BY(mutex);
  };
  const auto flush = std::make_shared<Flush>(writer);
  for (WorkerLease& lease : answers.workers->LeaseAll()) {
    AttentionClient* const worker = lease.worker();
    const auto held = std::make_shared<WorkerLease>(std::move(lease));
    worker->FlushCache([flush, held](const absl::Status& status) {
      MutexLock lock(&flush->mutex);
      if (!status.ok()) flush->failure = status;
    });
  }
}

HttpResponse SglangApi::Abort(const HttpRequest& request) const {
  const absl::StatusOr<Json> body = ParseBody(request.body);
  if (!body.ok()) return ErrorResponse(ToApiError(body.status()));
  FieldReader reader(*body);
  const std::string rid = reader.String("rid").value_or("");
  const bool all = reader.Bool("abort_all").value_or(false);
  if (reader.status().ok() && rid.empty() && !all) {
    reader.Fail("rid", "give the rid of a request, or abort_all: true");
  }
  if (!reader.status().ok()) return ErrorResponse(ToApiError(reader.status()));
  const int aborted = all ? options_.answers->InterruptAll("abort")
                          : options_.answers->Interrupt(rid, "abort");
  return JsonResponse(200, {{"aborted", aborted}});
}

Json SglangApi::ModelInfo() const {
  return {{"model_path", options_.model_path},
          {"tokenizer_path", options_.model_path},
          {"is_generation", true},
          {"preferred_sampling_params", nullptr},
          {"weight_version", "default"},
          {"has_image_understanding", false},
          {"has_audio_understanding", false},
          {"model_type", "qwen3_next"},
          {"architectures", {"Qwen3NextForCausalLM"}}};
}

Json SglangApi::ServerInfo() const {
  const AnswerService::Options& answers = options_.answers->options();
  const model::RopeParameters& rope = options_.config.rope;
  Json scaling = nullptr;
  if (rope.yarn) {
    scaling = {{"rope_type", "yarn"},
               {"factor", rope.factor},
               {"original_max_position_embeddings",
                rope.original_max_position_embeddings},
               {"attention_factor", rope.attention_factor}};
  }
  return {
      {"model_path", options_.model_path},
      {"tokenizer_path", options_.model_path},
      {"served_model_name", answers.served_model_name},
      {"version", std::string(kVersion)},
      {"context_length", answers.max_model_len},
      {"max_model_len", answers.max_model_len},
      {"rope_theta", rope.theta},
      {"rope_scaling", std::move(scaling)},
      {"vocab_size", options_.config.vocab_size},
      {"chat_format",
       std::string(ChatFormatName(options_.planner->options().chat_format))},
      {"disaggregation_mode", "null"},
      {"dp_size", answers.workers->Describe().size()},
      {"internal_states", Loads()["loads"]}};
}

Json SglangApi::Loads() const {
  const AnswerService::Options& answers = options_.answers->options();
  Json loads = Json::array();
  int64_t running = 0, waiting = 0;
  double usage_sum = 0;
  int rank = 0;
  for (const auto& worker : answers.workers->Describe()) {
    const AttentionWorkerInfo& info = worker.info;
    const double usage = info.state_bytes_budget > 0
                             ? static_cast<double>(info.state_bytes_used) /
                                   static_cast<double>(info.state_bytes_budget)
                             : 0.0;
    loads.push_back({{"dp_rank", rank++},
                     {"worker", worker.name},
                     {"num_running_reqs", info.running_requests},
                     {"num_waiting_reqs", info.waiting_requests},
                     {"token_usage", usage},
                     {"state_bytes_used", info.state_bytes_used},
                     {"state_bytes_budget", info.state_bytes_budget},
                     {"in_flight_reqs", worker.in_flight}});
    // Benchmarks take its presence for drafting.
    if (info.accepted_length > 0) {
      loads.back()["avg_spec_accept_length"] = info.accepted_length;
    }
    running += info.running_requests;
    waiting += info.waiting_requests;
    usage_sum += usage;
  }
  const double workers = std::max<double>(1, static_cast<double>(loads.size()));
  return {{"timestamp", absl::FormatTime(answers.generation.timers->Now(),
                                         absl::UTCTimeZone())},
          {"version", std::string(kVersion)},
          {"dp_rank_count", loads.size()},
          {"loads", std::move(loads)},
          {"aggregate",
           {{"total_running_reqs", running},
            {"total_waiting_reqs", waiting},
            {"total_reqs", running + waiting},
            {"avg_token_usage", usage_sum / workers}}}};
}

}  // namespace switchyard::router
