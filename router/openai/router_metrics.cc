#include "router/openai/router_metrics.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace switchyard::router {
namespace {

using metrics::Labels;

// SGLang's default edges (its metrics_collector).
const std::vector<double>& SglangTtftBuckets() {
  static const auto& edges = *new std::vector<double>{
      .1, .2, .4, .6, .8, 1, 2, 4, 6, 8, 10, 20, 40, 60, 80, 100, 200, 400};
  return edges;
}
const std::vector<double>& SglangItlBuckets() {
  static const auto& edges = *new std::vector<double>{
      .002, .004, .006, .008, .01, .015, .02, .025, .03, .035, .04, .06,
      .08,  .1,   .2,   .4,   .6,  .8,   1,   2,    4,   6,    8};
  return edges;
}
const std::vector<double>& SglangE2eBuckets() {
  static const auto& edges = *new std::vector<double>{
      .1, .2, .4, .6, .8,  1,   2,   4,   6,    8,    10,
      20, 40, 60, 80, 100, 200, 400, 600, 1200, 1800, 2400};
  return edges;
}

constexpr const char* kWorkerStates[] = {"unreachable", "loading", "ready",
                                         "waiting_experts", "draining"};

double Seconds(absl::Duration duration) {
  return absl::ToDoubleSeconds(duration);
}

}  // namespace

RouterMetrics::RouterMetrics(metrics::Registry* registry,
                             const std::string& model_name,
                             int64_t max_model_len)
    : registry_(registry),
      vllm_labels_{{"model_name", model_name}, {"engine", "0"}},
      sglang_labels_{{"model_name", model_name}} {
  AddGauges();
  AddCounters();
  AddTimes();
  AddSizes(static_cast<double>(max_model_len));
}

void RouterMetrics::AddGauges() {
  metrics::Registry* const r = registry_;
  const Labels& v = vllm_labels_;
  const Labels& s = sglang_labels_;
  waiting_tokens_ =
      r->AddGauge("switchyard_router_waiting_prompt_tokens",
                  "Tokens of prompts that have no first token yet.");
  estimated_ttft_ = r->AddGauge(
      "switchyard_router_estimated_ttft_seconds",
      "How long a prompt that came now would wait behind those that wait; 0: "
      "not known.");
  running_ = r->AddGauge("vllm:num_requests_running",
                         "Open requests that have had their first token.", v);
  waiting_ = r->AddGauge("vllm:num_requests_waiting",
                         "Open requests without a token yet.", v);
  kv_usage_ = r->AddGauge(
      "vllm:kv_cache_usage_perc",
      "Sequence state used, 0 to 1: of the fullest attention worker.", v);
  sglang_running_ = r->AddGauge("sglang:num_running_reqs",
                                "As vllm:num_requests_running.", s);
  sglang_queue_ =
      r->AddGauge("sglang:num_queue_reqs", "As vllm:num_requests_waiting.", s);
  sglang_token_usage_ =
      r->AddGauge("sglang:token_usage", "As vllm:kv_cache_usage_perc.", s);
  for (int i = 0; i < 5; ++i) {
    workers_[i] =
        r->AddGauge("switchyard_router_workers", "Attention workers by state.",
                    {{"state", kWorkerStates[i]}});
  }
}

void RouterMetrics::AddCounters() {
  metrics::Registry* const r = registry_;
  const Labels& v = vllm_labels_;
  const Labels& s = sglang_labels_;
  prompt_tokens_ =
      r->AddCounter("vllm:prompt_tokens_total", "Prompt tokens served.", v);
  generation_tokens_ =
      r->AddCounter("vllm:generation_tokens_total", "Tokens generated.", v);
  cached_tokens_ =
      r->AddCounter("vllm:prompt_tokens_cached_total",
                    "Prompt tokens that came from a prefix cache.", v);
  prefix_queries_ = r->AddCounter("vllm:prefix_cache_queries_total",
                                  "Prompt tokens looked up.", v);
  prefix_hits_ = r->AddCounter("vllm:prefix_cache_hits_total",
                               "Prompt tokens found in a prefix cache.", v);
  success_stop_ = Success("stop");
  success_length_ = Success("length");
  success_abort_ = Success("abort");
  success_error_ = Success("error");
  sglang_prompt_tokens_ =
      r->AddCounter("sglang:prompt_tokens_total", "Prompt tokens served.", s);
  sglang_generation_tokens_ =
      r->AddCounter("sglang:generation_tokens_total", "Tokens generated.", s);
  Labels device = s;
  device["cache_source"] = "device";
  sglang_cached_tokens_ = r->AddCounter("sglang:cached_tokens_total",
                                        "Prompt tokens from a cache.", device);
  sglang_requests_ =
      r->AddCounter("sglang:num_requests_total", "Requests accepted.", s);
  sglang_aborted_ = r->AddCounter("sglang:num_aborted_requests_total",
                                  "Requests whose client went away.", s);
  stripped_reasoning_tokens_ = r->AddCounter(
      "switchyard_router_stripped_reasoning_tokens_total",
      "Tokens of earlier answers' reasoning that the chat format hides, so "
      "that the prefix cache does not help beyond them (preserve_thinking "
      "shows them).",
      {});
  replays_ = r->AddCounter(
      "switchyard_router_replays_total",
      "Sequences that lost their attention worker and went on elsewhere.");
  waits_for_worker_ = r->AddCounter(
      "switchyard_router_waits_for_worker_total",
      "Sequences that waited since no attention worker could take them.");
  states_moved_ = r->AddCounter(
      "switchyard_router_states_moved_total",
      "Sequences whose state a draining attention worker handed over.");
  state_bytes_moved_ =
      r->AddCounter("switchyard_router_state_bytes_moved_total",
                    "Bytes of the states that were handed over.");
}

void RouterMetrics::AddTimes() {
  metrics::Registry* const r = registry_;
  const Labels& v = vllm_labels_;
  const Labels& s = sglang_labels_;
  ttft_ = r->AddHistogram("vllm:time_to_first_token_seconds",
                          "From arrival to the first token.",
                          metrics::TimeToFirstTokenBuckets(), v);
  itl_ = r->AddHistogram("vllm:inter_token_latency_seconds",
                         "Between two tokens of one choice.",
                         metrics::InterTokenBuckets(), v);
  tpot_ = r->AddHistogram("vllm:request_time_per_output_token_seconds",
                          "Decode time over tokens, of one choice.",
                          metrics::InterTokenBuckets(), v);
  const std::vector<double> seconds = metrics::RequestSecondsBuckets();
  e2e_ = r->AddHistogram("vllm:e2e_request_latency_seconds",
                         "From arrival to the last token.", seconds, v);
  queue_time_ = r->AddHistogram("vllm:request_queue_time_seconds",
                                "In the attention worker's queue.", seconds, v);
  prefill_time_ = r->AddHistogram("vllm:request_prefill_time_seconds",
                                  "Prefill.", seconds, v);
  decode_time_ = r->AddHistogram("vllm:request_decode_time_seconds", "Decode.",
                                 seconds, v);
  inference_time_ = r->AddHistogram("vllm:request_inference_time_seconds",
                                    "Prefill and decode.", seconds, v);
  sglang_ttft_ = r->AddHistogram("sglang:time_to_first_token_seconds",
                                 "From arrival to the first token.",
                                 SglangTtftBuckets(), s);
  sglang_itl_ = r->AddHistogram("sglang:inter_token_latency_seconds",
                                "Between two tokens of one choice.",
                                SglangItlBuckets(), s);
  sglang_e2e_ =
      r->AddHistogram("sglang:e2e_request_latency_seconds",
                      "From arrival to the last token.", SglangE2eBuckets(), s);
}

void RouterMetrics::AddSizes(double max_tokens) {
  metrics::Registry* const r = registry_;
  const Labels& v = vllm_labels_;
  request_prompt_tokens_ =
      r->AddHistogram("vllm:request_prompt_tokens", "Prompt tokens a request.",
                      metrics::TokenCountBuckets(max_tokens), v);
  request_generation_tokens_ = r->AddHistogram(
      "vllm:request_generation_tokens", "Generated tokens a choice.",
      metrics::TokenCountBuckets(max_tokens), v);
  params_max_tokens_ = r->AddHistogram(
      "vllm:request_params_max_tokens", "max_tokens, as far as it can count.",
      metrics::TokenCountBuckets(max_tokens), v);
  params_n_ = r->AddHistogram("vllm:request_params_n", "Choices a request.",
                              {1, 2, 5, 10, 20}, v);
}

metrics::Counter* RouterMetrics::Success(const std::string& reason) {
  Labels labels = vllm_labels_;
  labels["finished_reason"] = reason;
  return registry_->AddCounter("vllm:request_success_total",
                               "Ended choices, by how they ended.", labels);
}

void RouterMetrics::SetLoad(const Load& load) {
  running_->Set(static_cast<double>(load.running));
  waiting_->Set(static_cast<double>(load.waiting));
  sglang_running_->Set(static_cast<double>(load.running));
  sglang_queue_->Set(static_cast<double>(load.waiting));
  waiting_tokens_->Set(static_cast<double>(load.waiting_tokens));
  estimated_ttft_->Set(absl::ToDoubleSeconds(load.estimated_ttft));
  double usage = 0;
  int states[5] = {};
  for (const AttentionWorkerInfo& worker : load.workers) {
    ++states[static_cast<int>(worker.state)];
    if (worker.state != AttentionWorkerInfo::State::kUnreachable &&
        worker.state_bytes_budget > 0) {
      usage =
          std::max(usage, static_cast<double>(worker.state_bytes_used) /
                              static_cast<double>(worker.state_bytes_budget));
    }
  }
  kv_usage_->Set(usage);
  sglang_token_usage_->Set(usage);
  for (int i = 0; i < 5; ++i) workers_[i]->Set(states[i]);
}

void RouterMetrics::OnAccepted(int num_choices, int64_t max_tokens,
                               int64_t prompt_tokens,
                               int64_t stripped_reasoning_tokens) {
  sglang_requests_->Increment();
  params_n_->Observe(num_choices);
  params_max_tokens_->Observe(static_cast<double>(max_tokens));
  request_prompt_tokens_->Observe(static_cast<double>(prompt_tokens));
  stripped_reasoning_tokens_->Increment(
      static_cast<double>(stripped_reasoning_tokens));
}

void RouterMetrics::OnFirstToken(absl::Duration since_arrival) {
  ttft_->Observe(Seconds(since_arrival));
  sglang_ttft_->Observe(Seconds(since_arrival));
}

void RouterMetrics::OnNextToken(absl::Duration since_last) {
  itl_->Observe(Seconds(since_last));
  sglang_itl_->Observe(Seconds(since_last));
}

void RouterMetrics::OnToken() {
  generation_tokens_->Increment();
  sglang_generation_tokens_->Increment();
}

void RouterMetrics::OnChoiceDone(absl::string_view finish,
                                 const TokenUsage& usage, int64_t output_tokens,
                                 absl::Duration since_arrival) {
  (finish == "length" ? success_length_ : success_stop_)->Increment();
  const double prompt = static_cast<double>(usage.prompt_tokens);
  const double cached = static_cast<double>(usage.cached_prompt_tokens);
  prompt_tokens_->Increment(prompt);
  sglang_prompt_tokens_->Increment(prompt);
  prefix_queries_->Increment(prompt);
  prefix_hits_->Increment(cached);
  cached_tokens_->Increment(cached);
  sglang_cached_tokens_->Increment(cached);
  e2e_->Observe(Seconds(since_arrival));
  sglang_e2e_->Observe(Seconds(since_arrival));
  request_generation_tokens_->Observe(static_cast<double>(output_tokens));
  // A choice that a stop string ended has no times of its worker.
  if (usage.prefill_time <= absl::ZeroDuration()) return;
  queue_time_->Observe(Seconds(usage.queue_time));
  prefill_time_->Observe(Seconds(usage.prefill_time));
  decode_time_->Observe(Seconds(usage.decode_time));
  inference_time_->Observe(Seconds(usage.prefill_time + usage.decode_time));
  if (output_tokens > 1) {
    tpot_->Observe(Seconds(usage.decode_time) /
                   static_cast<double>(output_tokens - 1));
  }
}

void RouterMetrics::OnAborted() {
  success_abort_->Increment();
  sglang_aborted_->Increment();
}

void RouterMetrics::OnFailed() { success_error_->Increment(); }
void RouterMetrics::OnReplay() { replays_->Increment(); }
void RouterMetrics::OnWaitForWorker() { waits_for_worker_->Increment(); }

void RouterMetrics::OnStateMoved(int64_t bytes) {
  states_moved_->Increment();
  state_bytes_moved_->Increment(static_cast<double>(bytes));
}

void RouterMetrics::OnHttpResponse(absl::string_view handler,
                                   absl::string_view method, int status,
                                   absl::Duration took) {
  const std::string h(handler), m(method);
  metrics::Counter* counter = nullptr;
  metrics::Histogram* seconds = nullptr;
  {
    MutexLock lock(&mutex_);
    metrics::Counter*& known = http_requests_[{h, m, status}];
    if (known == nullptr) {
      known = registry_->AddCounter(
          "http_requests_total", "HTTP answers.",
          {{"handler", h}, {"method", m}, {"status", absl::StrCat(status)}});
    }
    counter = known;
    metrics::Histogram*& known_seconds = http_seconds_[h];
    if (known_seconds == nullptr) {
      known_seconds = registry_->AddHistogram(
          "http_request_duration_seconds", "Until the head of the answer.",
          metrics::RequestSecondsBuckets(), {{"handler", h}});
    }
    seconds = known_seconds;
  }
  counter->Increment();
  seconds->Observe(Seconds(took));
}

}  // namespace switchyard::router
