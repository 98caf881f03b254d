// The router's metrics, under the names that dashboards, autoscalers and
// gateways already know: vLLM's and SGLang's.

#ifndef SWITCHYARD_ROUTER_OPENAI_ROUTER_METRICS_H_
#define SWITCHYARD_ROUTER_OPENAI_ROUTER_METRICS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "metrics/registry.h"
#include "router/client/attention_client.h"

namespace switchyard::router {

// Handles, made once. Thread-safe.
class RouterMetrics {
 public:
  // `registry` outlives this.
  RouterMetrics(metrics::Registry* registry, const std::string& model_name,
                int64_t max_model_len);

  // What gauges show at each exposition.
  struct Load {
    int64_t waiting = 0;  // open requests without a token yet
    int64_t running = 0;
    int64_t waiting_tokens = 0;     // of prompts without a first token
    absl::Duration estimated_ttft;  // 0: too little has been seen to tell
    std::vector<AttentionWorkerInfo> workers;
  };
  void SetLoad(const Load& load);

  void OnAccepted(int num_choices, int64_t max_tokens, int64_t prompt_tokens,
                  int64_t stripped_reasoning_tokens);
  void OnFirstToken(absl::Duration since_arrival);
  void OnNextToken(absl::Duration since_last);
  void OnToken();
  // One choice ended well. `finish` is OpenAI's finish_reason.
  void OnChoiceDone(absl::string_view finish, const TokenUsage& usage,
                    int64_t output_tokens, absl::Duration since_arrival);
  // The whole request ended badly.
  void OnAborted();
  void OnFailed();
  void OnReplay();
  void OnWaitForWorker();
  void OnStateMoved(int64_t bytes);

  // `handler` is a path pattern, never what a client sent.
  void OnHttpResponse(absl::string_view handler, absl::string_view method,
                      int status, absl::Duration took);

 private:
  // The constructor's parts.
  void AddGauges();
  void AddCounters();
  void AddTimes();
  void AddSizes(double max_tokens);
  metrics::Counter* Success(const std::string& reason);

  metrics::Registry* const registry_;
  const metrics::Labels vllm_labels_;
  const metrics::Labels sglang_labels_;

  metrics::Gauge* running_;
  metrics::Gauge* waiting_;
  metrics::Gauge* kv_usage_;
  metrics::Gauge* sglang_running_;
  metrics::Gauge* sglang_queue_;
  metrics::Gauge* waiting_tokens_;
  metrics::Gauge* estimated_ttft_;
  metrics::Gauge* sglang_token_usage_;
  metrics::Gauge* workers_[5];

  metrics::Counter* prompt_tokens_;
  metrics::Counter* generation_tokens_;
  metrics::Counter* cached_tokens_;
  metrics::Counter* prefix_queries_;
  metrics::Counter* prefix_hits_;
  metrics::Counter* success_stop_;
  metrics::Counter* success_length_;
  metrics::Counter* success_abort_;
  metrics::Counter* success_error_;
  metrics::Counter* sglang_prompt_tokens_;
  metrics::Counter* sglang_generation_tokens_;
  metrics::Counter* sglang_cached_tokens_;
  metrics::Counter* sglang_requests_;
  metrics::Counter* sglang_aborted_;
  metrics::Counter* replays_;
  metrics::Counter* stripped_reasoning_tokens_;
  metrics::Counter* waits_for_worker_;
  metrics::Counter* states_moved_;
  metrics::Counter* state_bytes_moved_;

  metrics::Histogram* ttft_;
  metrics::Histogram* itl_;
  metrics::Histogram* e2e_;
  metrics::Histogram* tpot_;
  metrics::Histogram* queue_time_;
  metrics::Histogram* prefill_time_;
  metrics::Histogram* decode_time_;
  metrics::Histogram* inference_time_;
  metrics::Histogram* request_prompt_tokens_;
  metrics::Histogram* request_generation_tokens_;
  metrics::Histogram* params_max_tokens_;
  metrics::Histogram* params_n_;
  metrics::Histogram* sglang_ttft_;
  metrics::Histogram* sglang_itl_;
  metrics::Histogram* sglang_e2e_;

  // Handles by (handler, method, status): a few dozen, made when first seen.
  Mutex mutex_;
  std::map<std::tuple<std::string, std::string, int>, metrics::Counter*>
      http_requests_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, metrics::Histogram*> http_seconds_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_ROUTER_METRICS_H_
