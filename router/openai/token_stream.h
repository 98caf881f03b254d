// One sequence's tokens, whichever attention worker gives them.
//
// Above: generation.h. Below: routing/ chooses an AttentionClient for each
// attempt. When a worker dies in the middle, the sequence goes on at another
// one, or at the same one when it is back, from the tokens it already has:
// sampling is a function of seed and position, so the text is the one that it
// would have been. When a worker falls silent, a second attempt runs elsewhere
// beside the first, and whichever gives the next token ends the other. A worker
// that drains is left as soon as another one is ready: its state is moved
// there, if that is sooner than reading the tokens again. A sequence that has
// had no worker yet waits for one only while the pool expects one back.

#ifndef SWITCHYARD_ROUTER_OPENAI_TOKEN_STREAM_H_
#define SWITCHYARD_ROUTER_OPENAI_TOKEN_STREAM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "router/client/attention_client.h"
#include "router/http/timer_queue.h"
#include "router/routing/move_costs.h"
#include "router/routing/worker_pool.h"

namespace switchyard::router {

// Lives on one strand, `post`: all functions are called and all callbacks come
// there. Create with std::make_shared.
class TokenStream : public std::enable_shared_from_this<TokenStream> {
 public:
  struct Environment {
    WorkerPool* workers = nullptr;  // not owned, like the next; outlive this
    TimerQueue* timers = nullptr;
    std::function<void(std::function<void()>)> post;
    std::function<void()> on_replay;  // counts; may be null
    // Counts those that wait for their first worker; may be null.
    std::function<void()> on_wait = nullptr;
    // Null: states are never moved. Not owned; outlives this.
    MoveCosts* move_costs = nullptr;
    std::function<void(int64_t bytes)> on_state_moved;  // may be null
    // How long to look for a worker after one was lost.
    absl::Duration failover_timeout = absl::Seconds(30);
  };
  struct Callbacks {
    std::function<void(const TokenEvent&)> on_token;
    // Before all others: of the prompt, if TokenRequest::prompt_logprobs_from
    // is set; once each, also if the prompt is read twice.
    std::function<void(const TokenEvent&)> on_prompt_token = nullptr;
    // Once, last.
    std::function<void(const absl::Status&, TokenFinish, const TokenUsage&)>
        on_done;
  };

  TokenStream(Environment environment, TokenRequest request,
              Callbacks callbacks);
  ~TokenStream();

  void Start();
  // No callback comes any more; the worker is told. Idempotent.
  void Cancel();

 private:
  class Mailbox;

  // The sequence at one worker, from all tokens that were known at the start.
  struct Attempt {
    WorkerLease lease;
    std::string id;
    std::shared_ptr<Mailbox> mailbox;
  };
  // Two at most: a worker that fell silent, and another in its place.
  static constexpr size_t kMaxAttempts = 2;

  // Preferably not the worker of the last attempt.
  void Try();
  // A worker that is ready and has no attempt of this, nor the name `but`.
  absl::optional<WorkerLease> OtherReadyWorker(const std::string& but);
  void StartAttempt(WorkerLease lease);
  // Null: it has ended.
  Attempt* Find(const Mailbox* mailbox);
  // Without a word to the worker, which has said its last.
  void Forget(const Mailbox* mailbox);
  // And the worker is told.
  void CancelAttempts(const Mailbox* but);
  void Drain(const Mailbox* mailbox);
  void MoveFrom(const Mailbox* mailbox);
  // Brings the state of the only attempt, at a worker that drains, to `to`. Its
  // tokens come until its turn; then it goes on there.
  void HandOverTo(WorkerLease to);
  bool MovingIsCheaper(const AttentionWorkerInfo& from) const;
  void OnHandedOver(const absl::StatusOr<HandedOver>& result,
                    absl::Duration took);
  void GoOnAtReceiver();
  void Replay(const std::string& why);
  void OnAttemptDone(const absl::Status& status, TokenFinish finish,
                     const TokenUsage& usage);
  // Ends the stream if the tokens it has are all that it can have.
  bool EndedByItself();
  // After a worker was lost.
  void RetryLater(const absl::Status& why);
  // Before there was any.
  void WaitForWorker(const absl::Status& why);
  // Before `limit`, which is to come.
  void SetRetryTimer(absl::Time limit);
  void End(const absl::Status& status, TokenFinish finish,
           const TokenUsage& usage);

  const Environment environment_;
  const TokenRequest request_;
  const Callbacks callbacks_;

  int num_attempts_ = 0;
  std::vector<Attempt> attempts_;  // those that run, in order of their start
  // Where the state is being brought, and whether it is there or never will be.
  absl::optional<WorkerLease> receiver_;
  bool handed_over_ = false;
  std::string last_worker_;  // of the attempt that ended last
  std::vector<int32_t> output_ids_;
  int64_t next_prompt_token_ = 0;  // to be told of
  // What the first attempt that gave a token said: what a replay finds is the
  // request's own doing.
  absl::optional<int64_t> cached_prompt_tokens_;
  bool tried_other_when_full_ = false;
  bool waited_for_worker_ = false;
  absl::Status last_failure_;
  absl::Time give_up_ =
      absl::InfiniteFuture();  // set while looking for a worker
  absl::Duration retry_delay_;
  TimerQueue::Id retry_timer_ = 0;
  bool ended_ = false;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_TOKEN_STREAM_H_
