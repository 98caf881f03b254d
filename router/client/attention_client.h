// How the router reaches an attention worker. The router's core sees only this:
// behind it is a gRPC stream, an engine in the same process, or a fake.

#ifndef SWITCHYARD_ROUTER_CLIENT_ATTENTION_CLIENT_H_
#define SWITCHYARD_ROUTER_CLIENT_ATTENTION_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"

namespace switchyard::router {

// A limit of the reasoning; see the proto.
struct ThinkingBudget {
  int64_t tokens = 0;
  absl::optional<int32_t> begin_id = {};
  int32_t end_id = 0;
  std::vector<int32_t> closing_ids = {};
};

struct SamplingParams {
  double temperature = 1.0;  // below 1e-6: greedy
  double top_p = 1.0;
  int top_k = 0;
  double min_p = 0.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  double repetition_penalty = 1.0;
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias = {};  // each once
  std::vector<int32_t> allowed_token_ids = {};             // empty: all
  int64_t min_tokens = 0;  // before one of stop_token_ids
  absl::optional<ThinkingBudget> thinking_budget = {};
};

// What the output must look like; see the proto.
struct OutputFormat {
  enum class Kind { kJsonSchema, kRegex, kEbnf, kToolCalls, kStructuralTag };
  enum class Reasoning { kNone, kMaybe, kOpened };
  Kind kind = Kind::kJsonSchema;
  std::string text;
  Reasoning reasoning = Reasoning::kNone;
};

struct TokenRequest {
  std::string id;
  std::vector<int32_t> prompt_ids;
  std::vector<int32_t> resumed_output_ids;
  // Indices of the tokens that begin a message, ascending; see the proto.
  std::vector<int64_t> prefix_boundaries;
  SamplingParams sampling;
  int64_t max_tokens = 0;
  std::vector<int32_t> stop_token_ids;
  bool want_logprobs = false;
  int num_top_logprobs = 0;
  // From this token of the prompt on, at least 1, tokens of the prompt come
  // too, before the output's; needs want_logprobs.
  absl::optional<int64_t> prompt_logprobs_from = {};
  absl::Time deadline = absl::InfiniteFuture();
  int priority = 0;         // lower goes first
  std::string client;       // who asks; see the proto
  std::string cache_scope;  // who may share kept prefixes; see the proto
  std::string traceparent;  // of the span that this serves; "": not traced
  absl::optional<OutputFormat> output_format = {};
};

// A token of the output, or one of the prompt whose logprob was asked for.
struct TokenEvent {
  int32_t id = 0;
  int64_t position = 0;
  float logprob = 0;
  std::vector<std::pair<int32_t, float>> top_logprobs;
  // Of the prompt's tokens: 1 for the likeliest of the vocabulary, and so on.
  // 0: unknown.
  int64_t rank = 0;
  // With a call's first token: of the prompt, read by somebody before.
  absl::optional<int64_t> cached_prompt_tokens;
};

enum class TokenFinish { kStop, kLength };

struct TokenUsage {
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;
  int64_t output_tokens = 0;
  absl::Duration queue_time;
  absl::Duration prefill_time;
  absl::Duration decode_time;
};

// OnToken and OnDone are called from one thread at a time, never concurrently,
// nothing after OnDone. Must not block.
class TokenListener {
 public:
  virtual ~TokenListener() = default;
  virtual void OnToken(const TokenEvent& event) = 0;
  // `finish` and `usage` count only if `status` is OK.
  virtual void OnDone(const absl::Status& status, TokenFinish finish,
                      const TokenUsage& usage) = 0;
  // The worker does not answer though it is connected, or it drains: the
  // request should go on elsewhere, if it can. Tokens may still come. Comes
  // again from time to time while it is so, from any thread, and rarely after
  // OnDone.
  virtual void OnMoveAdvised() {}
};

struct AttentionWorkerInfo {
  enum class State {
    kUnreachable,
    kLoading,
    kReady,
    kWaitingExperts,
    kDraining
  };
  State state = State::kUnreachable;
  std::string instance_id;
  std::string model_fingerprint;
  std::string version;
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;
  double loading_progress = 0;  // 0 to 1
  int64_t running_requests = 0;
  int64_t waiting_requests = 0;
  int64_t state_bytes_used = 0;
  int64_t state_bytes_budget = 0;
  std::string message;
  // It is connected but has not answered for a while: it hangs, or its machine
  // does. All else is what it said last.
  bool silent = false;
  // What a session's state takes; 0: unknown.
  int64_t state_fixed_bytes = 0;
  int64_t state_token_bytes = 0;  // and for each token
  // Tokens a step with drafts gives a sequence; 0: not known.
  double accepted_length = 0;
};

// A request's state that is at another worker now.
struct HandedOver {
  int64_t num_tokens = 0;
  int64_t bytes = 0;
};

// One attention worker. Thread-safe.
class AttentionClient {
 public:
  virtual ~AttentionClient() = default;

  // For messages and metric labels.
  virtual std::string name() const = 0;

  // What the worker said last (at most a second or so ago); never blocks.
  virtual AttentionWorkerInfo info() const = 0;

  // Somebody says that a process has come to the worker's address: if it was
  // lost, it is asked at once how it is. Never blocks.
  virtual void AskNow() {}

  // Starts the request and returns; `listener` is kept until OnDone has
  // returned.
  virtual void Generate(TokenRequest request,
                        std::shared_ptr<TokenListener> listener) = 0;

  // The listener's OnDone comes with CANCELLED soon, unless it came already.
  virtual void Cancel(const std::string& request_id) = 0;

  // Makes the worker forget the prefixes that it keeps in memory, before any
  // request that comes after. FAILED_PRECONDITION: it has requests. `done` is
  // called once, from any thread.
  virtual void FlushCache(std::function<void(absl::Status)> done) {
    done(absl::UnimplementedError("this worker cannot forget its prefixes"));
  }

  // Ends a request that runs here (OnDone with UNAVAILABLE) and brings its
  // state to `to`, where it can go on. Several one after the other: a request
  // runs here until its turn. `done` comes once, from any thread, perhaps
  // before this returns; with an error the state is not there, and the request
  // may still run.
  virtual void HandOver(
      const std::string& /*request_id*/, AttentionClient* /*to*/,
      std::function<void(const absl::StatusOr<HandedOver>&)> done) {
    done(absl::UnimplementedError(
        "this attention worker's states cannot be moved"));
  }
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_CLIENT_ATTENTION_CLIENT_H_
