// The attention worker without its network: token requests in, tokens out.
//
// Above: service/generation_service.h and the one-process server call Submit().
// Below: scheduler/ decides each step, layers/ computes it, sampling/ picks
// tokens. Not here: gRPC, protobuf, text.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_ENGINE_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "attention_worker/layers/model_runner.h"
#include "attention_worker/layers/mtp_head.h"
#include "attention_worker/sampling/output_constraint.h"
#include "attention_worker/sampling/sampler.h"
#include "attention_worker/state/snapshot_store.h"
#include "base/clock.h"
#include "base/compute_pool.h"
#include "grammar/compiled_grammar.h"
#include "grammar/grammar_kind.h"
#include "grammar/vocabulary.h"

namespace switchyard::attention_worker {

class EngineMetrics;   // attention_worker/core/engine_metrics.h
class StateTransfers;  // attention_worker/core/state_transfers.h

// What the output must look like.
struct OutputFormat {
  grammar::GrammarKind kind = grammar::GrammarKind::kJsonSchema;
  std::string text;
  OutputReasoning reasoning = OutputReasoning::kNone;
};

struct GenerationRequest {
  std::string id;  // unique among live requests; for logs and Cancel
  std::vector<int32_t> prompt_ids;  // >= 1
  // Tokens that an earlier run of this request already gave (replay after a
  // failover): part of the context, counted as generated, not sent again.
  std::vector<int32_t> resumed_output_ids;
  SamplingParams sampling;
  // Token counts, ascending, where the prompt may meet others': ends of
  // messages. Advice; those out of range are passed over.
  std::vector<int64_t> prefix_boundaries;
  int32_t priority = 0;     // lower goes first
  uint64_t client = 0;      // among whom to be fair: any number for each
  std::string cache_scope;  // among whom prefixes are shared (state/prefix.h)
  int64_t max_tokens = 0;   // of output, resumed ones included; >= 1
  std::vector<int32_t>
      stop_token_ids;  // end with kStop; the stop token is sent
  bool want_logprobs = false;
  int num_top_logprobs = 0;  // [0, 20]
  // From this token of the prompt on, at least 1, the prompt's tokens are given
  // out too, before the output's; needs want_logprobs. -1: none.
  int64_t prompt_logprobs_from = -1;
  absl::optional<OutputFormat> format = {};
  // Of `format`: Submit() sees to it.
  std::shared_ptr<const grammar::CompiledGrammar> grammar = {};
  absl::Time deadline = absl::InfiniteFuture();
};

// Of the output, or of the prompt if that was asked for.
struct GeneratedToken {
  SampledToken token;
  int64_t position = 0;  // in the sequence: prompt length for the first
  // With the first one: GenerationUsage::cached_prompt_tokens.
  std::optional<int64_t> cached_prompt_tokens = std::nullopt;
};

enum class FinishReason { kStop, kLength };

struct GenerationUsage {
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;
  int64_t output_tokens = 0;
  absl::Duration queue_time;
  absl::Duration prefill_time;
  absl::Duration decode_time;
};

// Where one request's tokens go. Called by the step thread: must not block.
// After OnDone nothing is called again.
class TokenSink {
 public:
  virtual ~TokenSink() = default;
  // It has waited; its prompt is computed from now on. Not for a request that
  // ends before.
  virtual void OnBegin() {}
  virtual void OnToken(const GeneratedToken& token) = 0;
  // `reason` counts only if `status` is OK. CANCELLED after Cancel();
  // DEADLINE_EXCEEDED (with the missing experts' names, if that was why);
  // UNAVAILABLE when the engine stops.
  virtual void OnDone(const absl::Status& status, FinishReason reason,
                      const GenerationUsage& usage) = 0;
};

struct EngineLoad {
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t state_bytes_used =
      0;  // of running sequences; shared pages count for each
  int64_t state_bytes_budget = 0;
  int64_t transfers = 0;  // states on their way out
  // Tokens that a step with drafts gives a sequence, its own included: a moving
  // average. 0: no draft was verified yet.
  double accepted_length = 0;
};

// Life: Create() starts the step thread; Submit() until Stop(); the destructor
// stops. Thread-safe.
class Engine {
 public:
  struct Options {
    ModelRunner* runner = nullptr;  // not owned; outlives this
    // For sampling; the runner's. Not owned; null: the step thread alone.
    ComputePool* pool = nullptr;
    int64_t vocab_size = 0;
    int64_t max_model_len = 0;  // prompt and output together
    int64_t max_running_requests = 64;
    int64_t max_queued_requests = 1024;  // that hold no state
    // Prompt and resumed tokens of all requests here, running or waiting.
    int64_t max_queued_tokens = 16 << 20;
    int64_t chunked_prefill_size = 1024;  // prompt tokens a step, all sequences
    // Budget of all sequences' states and of what is kept of finished ones.
    int64_t state_memory_bytes = 0;
    bool prefix_caching = true;
    // Keeps prefixes beyond memory and life of the engine. Not owned; null:
    // nobody does.
    SnapshotStore* store = nullptr;
    // The tokenizer's; null: requests with a format are refused.
    std::shared_ptr<const grammar::Vocabulary> vocabulary;
    // Drafts as many tokens as the runner's states have room for
    // (ModelRunner::Options::max_draft_tokens). Not owned; null, and only then,
    // if that is 0.
    MtpHead* mtp_head = nullptr;
    bool adaptive_drafts = true;       // false: always all of them
    EngineMetrics* metrics = nullptr;  // not owned; null: none
    // The runner's, if it has one; then its parts are among the metrics. Not
    // owned.
    StepTimer* timer = nullptr;
    const Clock* clock = Clock::Real();
  };

  static absl::StatusOr<std::unique_ptr<Engine>> Create(Options options);
  virtual ~Engine() = default;

  // Queues the request. INVALID_ARGUMENT: empty prompt, an id outside the
  // vocabulary, a parameter out of range, or longer than max_model_len or the
  // whole state budget allows (with the numbers). RESOURCE_EXHAUSTED: the queue
  // is full. ALREADY_EXISTS: the id is in use. UNAVAILABLE: stopping.
  // FAILED_PRECONDITION: a format, and no vocabulary. `sink` is then never
  // called. What is wrong with a format's grammar is the sink's last word.
  virtual absl::Status Submit(GenerationRequest request,
                              std::unique_ptr<TokenSink> sink) = 0;

  // The request ends with CANCELLED at the next step boundary. Unknown ids are
  // ignored: it may just have ended.
  virtual void Cancel(const std::string& id) = 0;

  // Forgets the prefixes kept in memory, before any request that comes after.
  // FAILED_PRECONDITION: there are requests.
  virtual absl::Status FlushCache() = 0;

  virtual EngineLoad load() const = 0;

  // Runs `task` on the step thread before the next step; it must be short. With
  // null if the engine has stopped, perhaps before this returns.
  using Task = std::function<void(StateTransfers* transfers)>;
  virtual void BetweenSteps(Task task) = 0;

  virtual const StateShape& state_shape() const = 0;

  // Fails what waits and runs with UNAVAILABLE, and joins the step thread.
  // Idempotent.
  virtual void Stop() = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_ENGINE_H_
