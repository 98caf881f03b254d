// One dispatch after another, on the dispatching thread: which pairs are where,
// and what is done about failures.
//
// Above: expert_dispatcher.h. Below: reply_inbox.h brings replies,
// expert_client.h takes calls.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_DISPATCH_RUN_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_DISPATCH_RUN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attention_worker/moe/dispatch_metrics.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/moe/reply_inbox.h"
#include "base/buffer_pool.h"
#include "model/expert_set.h"

namespace switchyard::attention_worker {

// A pair is kWaiting -> kInFlight -> kDone; back to kWaiting when its call
// failed; kFailed, from either, with its sequence. It is in one call at a time,
// so its output is accepted once.
//
// Keeps its memory from one dispatch to the next. One thread.
class DispatchRun {
 public:
  // `options` and `metrics` outlive this.
  DispatchRun(const ExpertDispatcherOptions& options,
              const DispatchMetrics& metrics,
              std::shared_ptr<ReplyInbox> inbox);

  // Blocks until every pair is answered or its sequence has failed.
  DispatchResult Execute(const DispatchRequest& request,
                         absl::FunctionRef<void()> overlap);

 private:
  enum class PairState : uint8_t { kWaiting, kInFlight, kDone, kFailed };

  // What is known of one client, kept from one dispatch to the next.
  struct Holder {
    ExpertClient* client = nullptr;
    metrics::Histogram* accept_seconds = nullptr;
    model::ExpertSet holdings;  // as of the last HoldingsChanged
    // Gets nothing before this, after a failed call.
    absl::Time avoid_until = absl::InfinitePast();
    absl::Duration backoff;
    absl::Status last_error;
    // Of this dispatch.
    int calls_in_flight = 0;
    absl::Duration compute_time;
  };
  struct Call {
    size_t holder = 0;
    std::vector<int64_t> pairs;  // by expert, then by row: as the reply's rows
    ExpertReply reply;           // kept: results point into it
  };

  void Begin(const DispatchRequest& request);
  void SortPairsByExpert();
  // Fills in the request's quantised rows if calls need them.
  void Quantize();
  // Sends what waits and has a holder; clients that compute in Forward only if
  // `computing`, all others only if not.
  void SendWaiting(bool computing);
  // An index into holders_, or -1.
  int ChooseHolder(int expert, bool computing, absl::Time now);
  size_t NewCall(size_t holder);
  void Send(size_t call);
  // The call's rows and runs, in scratch that the next one overwrites.
  ExpertCall MakeCall(const Call& call);
  void TakeNews(absl::Time deadline);
  void Accept(Call* call, ExpertReply reply);
  void Refuse(const Call& call, const absl::Status& error);
  void ExpireSequences(absl::Time now);
  void FailSequence(size_t sequence, absl::Status status);
  absl::Status DeadlineError(size_t sequence) const;
  std::string DescribeHolders() const;
  absl::Time NextEvent(absl::Time now) const;

  int64_t RowOf(int64_t pair) const { return pair / request_.experts_per_row; }
  size_t SequenceOf(int64_t pair) const {
    return static_cast<size_t>(request_.sequence_of_row[RowOf(pair)]);
  }

  const ExpertDispatcherOptions& options_;
  const DispatchMetrics& metrics_;
  const std::shared_ptr<ReplyInbox> inbox_;
  const std::shared_ptr<BufferPool> buffers_;
  std::vector<Holder> holders_;  // one for each client

  // Of this dispatch.
  DispatchRequest request_;
  uint64_t number_ = 0;                // in the inbox
  std::vector<absl::Time> deadlines_;  // [S], max_wait applied
  std::vector<absl::Status> sequence_status_;
  std::vector<const float*> outputs_;  // [T * K]
  std::vector<PairState> pairs_;       // [T * K]
  std::vector<int64_t> by_expert_;     // all pairs, by expert, then by row
  std::vector<int64_t> unfinished_;    // [S] pairs of each sequence
  int64_t num_unfinished_ = 0;
  int64_t num_waiting_ = 0;
  std::vector<Call> calls_;  // the first num_calls_ are this dispatch's
  size_t num_calls_ = 0;
  ReplyInbox::News news_;

  // Scratch.
  std::vector<int64_t> begin_;        // SortPairsByExpert
  std::vector<int> candidates_;       // ChooseHolder
  std::vector<int> draft_of_;         // SendWaiting
  std::vector<int32_t> slot_of_row_;  // MakeCall; [T], -1 between
  std::vector<int32_t> rows_;         // MakeCall
  std::vector<experts::ExpertRun> runs_;
  PooledBuffer quantized_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_DISPATCH_RUN_H_
