// What the engine counts, under the names that dashboards and autoscalers know:
// vLLM's and SGLang's, and ours where neither has one.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_ENGINE_METRICS_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_ENGINE_METRICS_H_

#include <array>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attention_worker/core/engine.h"
#include "attention_worker/layers/step_timer.h"
#include "attention_worker/speculative/options.h"
#include "attention_worker/state/snapshot_store.h"
#include "metrics/registry.h"

namespace switchyard::attention_worker {

// Made once by the composition root; outlived by the registry. Thread-safe.
class EngineMetrics {
 public:
  // `model_name` is the label model_name of every metric.
  EngineMetrics(metrics::Registry* registry, const std::string& model_name,
                int64_t max_model_len);

  void RequestAccepted(const GenerationRequest& request);
  // The first time that the request got a state.
  void RequestAdmitted(absl::Duration queued);
  void RequestPreempted();
  // A request that was let in looked for `queried` tokens in the prefix cache
  // and found `hit` of them.
  void PrefixLookup(int64_t queried, int64_t hit);
  void SetPrefixCache(int64_t snapshots, int64_t evictions,
                      int64_t memory_bytes);
  // What the store on disk says of itself.
  void SetSnapshotStore(const SnapshotStore::Stats& stats);
  // `since_submit` for a request's first token, `since_last` for the others.
  void FirstToken(absl::Duration since_submit);
  void NextToken(absl::Duration since_last);
  void RequestDone(const absl::Status& status, FinishReason reason,
                   const GenerationUsage& usage, absl::Duration total);
  void StepDone(absl::Duration duration, int64_t prompt_tokens,
                int64_t decode_tokens);
  // Counted before anybody hears of them.
  void TokensSampled(int64_t tokens);
  // Of `drafted` >= 1 tokens of a sequence the first `accepted` were right; the
  // tokens of such a step, and the share of drafts that are right, on average.
  void DraftsVerified(int64_t drafted, int64_t accepted, double step_tokens,
                      double accepted_share);
  // Of a step that has ended.
  void PartsDone(const StepTimer& timer);
  void SetLoad(const EngineLoad& load);

 private:
  metrics::Gauge* running_;
  metrics::Gauge* waiting_;
  metrics::Gauge* usage_ratio_;
  metrics::Gauge* sglang_running_;
  metrics::Gauge* sglang_waiting_;
  metrics::Gauge* sglang_usage_ratio_;
  metrics::Gauge* state_bytes_used_;
  metrics::Gauge* state_bytes_budget_;
  metrics::Counter* prompt_tokens_;
  metrics::Counter* generation_tokens_;
  metrics::Counter* sglang_prompt_tokens_;
  metrics::Counter* sglang_generation_tokens_;
  metrics::Counter* sglang_requests_;
  metrics::Counter* sglang_aborted_;
  metrics::Counter* prefix_queries_;
  metrics::Counter* prefix_hits_;
  metrics::Counter* sglang_cached_tokens_;
  metrics::Gauge* sglang_hit_rate_;
  metrics::Gauge* snapshots_;
  metrics::Gauge* evictions_;
  metrics::Gauge* memory_bytes_;
  metrics::Gauge* disk_files_;
  metrics::Gauge* disk_bytes_;
  metrics::Gauge* disk_saved_;
  metrics::Gauge* disk_loaded_;
  metrics::Gauge* disk_dropped_;
  metrics::Gauge* disk_errors_;
  metrics::Counter* preemptions_;
  metrics::Counter* sglang_retracted_;
  metrics::Counter* drafts_;
  metrics::Counter* draft_tokens_;
  metrics::Counter* accepted_tokens_;
  std::array<metrics::Counter*, kMaxDraftTokens> accepted_at_;
  metrics::Gauge* sglang_accept_length_;
  metrics::Gauge* sglang_accept_rate_;
  metrics::Counter* finished_stop_;
  metrics::Counter* finished_length_;
  metrics::Counter* finished_abort_;
  metrics::Counter* finished_error_;
  metrics::Histogram* iteration_tokens_;
  metrics::Histogram* first_token_seconds_;
  metrics::Histogram* inter_token_seconds_;
  metrics::Histogram* queue_seconds_;
  metrics::Histogram* prefill_seconds_;
  metrics::Histogram* decode_seconds_;
  metrics::Histogram* inference_seconds_;
  metrics::Histogram* total_seconds_;
  metrics::Histogram* request_prompt_tokens_;
  metrics::Histogram* request_generation_tokens_;
  metrics::Histogram* request_max_tokens_;
  metrics::Histogram* step_seconds_;
  std::array<metrics::Counter*, kNumStepParts> part_seconds_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_ENGINE_METRICS_H_
