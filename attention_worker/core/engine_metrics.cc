#include "attention_worker/core/engine_metrics.h"

#include <vector>

namespace switchyard::attention_worker {
namespace {

// vLLM's edges for tokens of one step.
std::vector<double> IterationBuckets() {
  return {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
}

double UsageRatio(const EngineLoad& load) {
  return load.state_bytes_budget <= 0
             ? 0
             : static_cast<double>(load.state_bytes_used) /
                   static_cast<double>(load.state_bytes_budget);
}

}  // namespace

EngineMetrics::EngineMetrics(metrics::Registry* registry,
                             const std::string& model_name,
                             int64_t max_model_len) {
  const metrics::Labels labels = {{"model_name", model_name}, {"engine", "0"}};
  const metrics::Labels sglang = {{"model_name", model_name}};
  const auto finished = [&](const char* reason) {
    metrics::Labels with_reason = labels;
    with_reason["finished_reason"] = reason;
    return registry->AddCounter("vllm:request_success_total",
                                "Requests that ended, by reason.", with_reason);
  };
  const auto seconds = [&](const char* name, const char* help) {
    return registry->AddHistogram(name, help, metrics::RequestSecondsBuckets(),
                                  labels);
  };
  const auto tokens = [&](const char* name, const char* help) {
    return registry->AddHistogram(
        name, help,
        metrics::TokenCountBuckets(static_cast<double>(max_model_len)), labels);
  };

  running_ = registry->AddGauge("vllm:num_requests_running",
                                "Requests that hold a state.", labels);
  waiting_ = registry->AddGauge("vllm:num_requests_waiting",
                                "Requests that wait for a state.", labels);
  usage_ratio_ =
      registry->AddGauge("vllm:kv_cache_usage_perc",
                         "Bytes of sequence states (KV and recurrent) over "
                         "their budget, 0 to 1.",
                         labels);
  sglang_running_ = registry->AddGauge("sglang:num_running_reqs",
                                       "Requests that hold a state.", sglang);
  sglang_waiting_ = registry->AddGauge(
      "sglang:num_queue_reqs", "Requests that wait for a state.", sglang);
  sglang_usage_ratio_ =
      registry->AddGauge("sglang:token_usage",
                         "Bytes of sequence states (KV and recurrent) over "
                         "their budget, 0 to 1.",
                         sglang);
  state_bytes_used_ = registry->AddGauge("switchyard_engine_state_bytes",
                                         "Bytes of sequence states.", sglang);
  state_bytes_budget_ =
      registry->AddGauge("switchyard_engine_state_budget_bytes",
                         "Budget of sequence states.", sglang);

  prompt_tokens_ = registry->AddCounter("vllm:prompt_tokens_total",
                                        "Prompt tokens computed.", labels);
  generation_tokens_ = registry->AddCounter("vllm:generation_tokens_total",
                                            "Tokens generated.", labels);
  sglang_prompt_tokens_ = registry->AddCounter(
      "sglang:prompt_tokens_total", "Prompt tokens computed.", sglang);
  sglang_generation_tokens_ = registry->AddCounter(
      "sglang:generation_tokens_total", "Tokens generated.", sglang);
  sglang_requests_ = registry->AddCounter("sglang:num_requests_total",
                                          "Requests accepted.", sglang);
  sglang_aborted_ = registry->AddCounter("sglang:num_aborted_requests_total",
                                         "Requests cancelled.", sglang);
  prefix_queries_ = registry->AddCounter(
      "vllm:prefix_cache_queries_total",
      "Tokens of requests that were looked up in the prefix cache.", labels);
  prefix_hits_ = registry->AddCounter(
      "vllm:prefix_cache_hits_total",
      "Tokens of requests that the prefix cache had.", labels);
  sglang_cached_tokens_ = registry->AddCounter(
      "sglang:cached_tokens_total",
      "Tokens of requests that the prefix cache had.", sglang);
  sglang_hit_rate_ = registry->AddGauge(
      "sglang:cache_hit_rate",
      "Share of the last admitted request that the prefix cache had.", sglang);
  snapshots_ = registry->AddGauge("switchyard_engine_prefix_cache_snapshots",
                                  "Snapshots that are kept.", sglang);
  evictions_ = registry->AddGauge("switchyard_engine_prefix_cache_evictions",
                                  "Snapshots dropped for lack of memory, since "
                                  "the start.",
                                  sglang);
  memory_bytes_ = registry->AddGauge(
      "switchyard_engine_state_memory_bytes",
      "Bytes of states and snapshots, each counted once.", sglang);
  const auto disk = [&](const char* name, const char* help) {
    return registry->AddGauge(name, help, sglang);
  };
  disk_files_ = disk("switchyard_engine_disk_states", "States kept on disk.");
  disk_bytes_ = disk("switchyard_engine_disk_state_bytes", "Their bytes.");
  disk_saved_ = disk("switchyard_engine_disk_states_saved",
                     "States written to disk, since the start.");
  disk_loaded_ = disk("switchyard_engine_disk_states_loaded",
                      "States read from disk, since the start.");
  disk_dropped_ = disk("switchyard_engine_disk_states_dropped",
                       "States that were to be written and were not: too many "
                       "at once, or evicted meanwhile; since the start.");
  disk_errors_ = disk("switchyard_engine_disk_state_errors",
                      "Files of states that could not be written or read, "
                      "since the start.");
  preemptions_ = registry->AddCounter(
      "vllm:num_preemptions_total",
      "States given back for lack of memory, to be computed again.", labels);
  sglang_retracted_ = registry->AddCounter(
      "sglang:num_retracted_requests_total",
      "States given back for lack of memory, to be computed again.", sglang);
  drafts_ = registry->AddCounter("vllm:spec_decode_num_drafts_total",
                                 "Chains of drafted tokens verified.", labels);
  draft_tokens_ =
      registry->AddCounter("vllm:spec_decode_num_draft_tokens_total",
                           "Drafted tokens verified.", labels);
  accepted_tokens_ =
      registry->AddCounter("vllm:spec_decode_num_accepted_tokens_total",
                           "Drafted tokens that were right.", labels);
  for (int i = 0; i < kMaxDraftTokens; ++i) {
    metrics::Labels at = labels;
    at["position"] = absl::StrCat(i);
    accepted_at_[i] = registry->AddCounter(
        "vllm:spec_decode_num_accepted_tokens_per_pos_total",
        "Drafted tokens that were right, by their place in the chain.", at);
  }
  sglang_accept_length_ = registry->AddGauge(
      "sglang:spec_accept_length",
      "Tokens of a step that verified drafts: moving average.", sglang);
  sglang_accept_rate_ = registry->AddGauge(
      "sglang:spec_accept_rate",
      "Share of drafted tokens that were right: moving average.", sglang);
  finished_stop_ = finished("stop");
  finished_length_ = finished("length");
  finished_abort_ = finished("abort");
  finished_error_ = finished("error");

  iteration_tokens_ = registry->AddHistogram(
      "vllm:iteration_tokens_total", "Tokens in a step, prompt and decode.",
      IterationBuckets(), labels);
  first_token_seconds_ = registry->AddHistogram(
      "vllm:time_to_first_token_seconds", "From submission to the first token.",
      metrics::TimeToFirstTokenBuckets(), labels);
  inter_token_seconds_ = registry->AddHistogram(
      "vllm:inter_token_latency_seconds", "Between a request's tokens.",
      metrics::InterTokenBuckets(), labels);
  queue_seconds_ = seconds("vllm:request_queue_time_seconds",
                           "From submission until the request got a state.");
  prefill_seconds_ = seconds("vllm:request_prefill_time_seconds",
                             "From getting a state to the first token.");
  decode_seconds_ = seconds("vllm:request_decode_time_seconds",
                            "From the first token to the last.");
  inference_seconds_ = seconds("vllm:request_inference_time_seconds",
                               "From getting a state to the last token.");
  total_seconds_ = seconds("vllm:e2e_request_latency_seconds",
                           "From submission to the last token.");
  request_prompt_tokens_ =
      tokens("vllm:request_prompt_tokens", "Prompt tokens of a request.");
  request_generation_tokens_ = tokens("vllm:request_generation_tokens",
                                      "Generated tokens of a request.");
  request_max_tokens_ =
      tokens("vllm:request_params_max_tokens", "max_tokens of a request.");
  step_seconds_ = registry->AddHistogram(
      "switchyard_engine_step_seconds", "Duration of a step of the model.",
      metrics::ShortSecondsBuckets(), sglang);
  for (int part = 0; part < kNumStepParts; ++part) {
    metrics::Labels with_part = sglang;
    with_part["part"] = StepPartName(static_cast<StepPart>(part));
    part_seconds_[part] = registry->AddCounter(
        "switchyard_engine_step_part_seconds_total",
        "Time of steps by part of the model; routed experts as their holders "
        "say.",
        with_part);
  }
}

void EngineMetrics::RequestAccepted(const GenerationRequest& request) {
  sglang_requests_->Increment();
  request_max_tokens_->Observe(static_cast<double>(request.max_tokens));
}

void EngineMetrics::RequestAdmitted(absl::Duration queued) {
  queue_seconds_->Observe(absl::ToDoubleSeconds(queued));
}

void EngineMetrics::RequestPreempted() {
  preemptions_->Increment();
  sglang_retracted_->Increment();
}

void EngineMetrics::PrefixLookup(int64_t queried, int64_t hit) {
  prefix_queries_->Increment(static_cast<double>(queried));
  prefix_hits_->Increment(static_cast<double>(hit));
  sglang_cached_tokens_->Increment(static_cast<double>(hit));
  sglang_hit_rate_->Set(static_cast<double>(hit) /
                        static_cast<double>(queried));
}

void EngineMetrics::SetPrefixCache(int64_t snapshots, int64_t evictions,
                                   int64_t memory_bytes) {
  snapshots_->Set(static_cast<double>(snapshots));
  evictions_->Set(static_cast<double>(evictions));
  memory_bytes_->Set(static_cast<double>(memory_bytes));
}

void EngineMetrics::SetSnapshotStore(const SnapshotStore::Stats& stats) {
  disk_files_->Set(static_cast<double>(stats.files));
  disk_bytes_->Set(static_cast<double>(stats.bytes));
  disk_saved_->Set(static_cast<double>(stats.saved));
  disk_loaded_->Set(static_cast<double>(stats.loaded));
  disk_dropped_->Set(static_cast<double>(stats.dropped));
  disk_errors_->Set(static_cast<double>(stats.errors));
}

void EngineMetrics::FirstToken(absl::Duration since_submit) {
  first_token_seconds_->Observe(absl::ToDoubleSeconds(since_submit));
}

void EngineMetrics::NextToken(absl::Duration since_last) {
  inter_token_seconds_->Observe(absl::ToDoubleSeconds(since_last));
}

void EngineMetrics::RequestDone(const absl::Status& status, FinishReason reason,
                                const GenerationUsage& usage,
                                absl::Duration total) {
  if (absl::IsCancelled(status)) {
    finished_abort_->Increment();
    sglang_aborted_->Increment();
    return;
  }
  if (!status.ok()) {
    finished_error_->Increment();
    return;
  }
  switch (reason) {
    case FinishReason::kStop:
      finished_stop_->Increment();
      break;
    case FinishReason::kLength:
      finished_length_->Increment();
      break;
  }
  prefill_seconds_->Observe(absl::ToDoubleSeconds(usage.prefill_time));
  decode_seconds_->Observe(absl::ToDoubleSeconds(usage.decode_time));
  inference_seconds_->Observe(
      absl::ToDoubleSeconds(usage.prefill_time + usage.decode_time));
  total_seconds_->Observe(absl::ToDoubleSeconds(total));
  request_prompt_tokens_->Observe(static_cast<double>(usage.prompt_tokens));
  request_generation_tokens_->Observe(static_cast<double>(usage.output_tokens));
}

void EngineMetrics::StepDone(absl::Duration duration, int64_t prompt_tokens,
                             int64_t decode_tokens) {
  step_seconds_->Observe(absl::ToDoubleSeconds(duration));
  iteration_tokens_->Observe(
      static_cast<double>(prompt_tokens + decode_tokens));
  prompt_tokens_->Increment(static_cast<double>(prompt_tokens));
  sglang_prompt_tokens_->Increment(static_cast<double>(prompt_tokens));
}

void EngineMetrics::TokensSampled(int64_t tokens) {
  generation_tokens_->Increment(static_cast<double>(tokens));
  sglang_generation_tokens_->Increment(static_cast<double>(tokens));
}

void EngineMetrics::DraftsVerified(int64_t drafted, int64_t accepted,
                                   double step_tokens, double accepted_share) {
  drafts_->Increment();
  draft_tokens_->Increment(static_cast<double>(drafted));
  accepted_tokens_->Increment(static_cast<double>(accepted));
  for (int64_t i = 0; i < accepted; ++i) accepted_at_[i]->Increment();
  sglang_accept_length_->Set(step_tokens);
  sglang_accept_rate_->Set(accepted_share);
}

void EngineMetrics::PartsDone(const StepTimer& timer) {
  for (int part = 0; part < kNumStepParts; ++part) {
    part_seconds_[part]->Increment(timer.seconds(static_cast<StepPart>(part)));
  }
}

void EngineMetrics::SetLoad(const EngineLoad& load) {
  running_->Set(static_cast<double>(load.running));
  sglang_running_->Set(static_cast<double>(load.running));
  waiting_->Set(static_cast<double>(load.waiting));
  sglang_waiting_->Set(static_cast<double>(load.waiting));
  usage_ratio_->Set(UsageRatio(load));
  sglang_usage_ratio_->Set(UsageRatio(load));
  state_bytes_used_->Set(static_cast<double>(load.state_bytes_used));
  state_bytes_budget_->Set(static_cast<double>(load.state_bytes_budget));
}

}  // namespace switchyard::attention_worker
