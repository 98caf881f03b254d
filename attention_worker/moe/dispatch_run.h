// One dispatch after another, on the dispatching thread: which pairs are where,
// and what is done about failures.
//
// Above: expert_dispatcher.h. Below: client_set.h says who the clients are,
// reply_inbox.h brings replies, expert_client.h takes calls.

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
#include "attention_worker/moe/client_set.h"
#include "attention_worker/moe/dispatch_metrics.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/moe/reply_inbox.h"
#include "base/buffer_pool.h"
#include "base/clock.h"
#include "model/expert_set.h"

namespace switchyard::attention_worker {

// A pair is kWaiting -> kInFlight -> kDone; back to kWaiting when its call
// failed; kFailed, from either, with its sequence. It is in one call at a time,
// so its output is accepted once.
//
// Keeps its memory from one dispatch to the next. One thread.
class DispatchRun {
 public:
  // All outlive this but the inbox, which it shares.
  DispatchRun(const ExpertDispatcherOptions& options,
              const DispatchMetrics& metrics, ClientSet* clients,
              std::shared_ptr<ReplyInbox> inbox);

  // Blocks until every pair is answered or its sequence has failed.
  DispatchResult Execute(const DispatchRequest& request,
                         absl::FunctionRef<void()> overlap);

 private:
  enum class PairState : uint8_t { kWaiting, kInFlight, kDone, kFailed };

  // What is known of one client, kept from one dispatch to the next.
  struct Holder {
    uint64_t id = 0;  // the client's, in the set
    std::string name;
    ExpertClient* client = nullptr;  // null once it is not in the set any more
    metrics::Histogram* accept_seconds = nullptr;
    model::ExpertSet holdings;  // as of the last HoldingsChanged
    // Gets nothing before this, after a failed call.
    absl::Time avoid_until = absl::InfinitePast();
    absl::Duration backoff;
    absl::Status last_error;
    // Of this dispatch.
    int calls_in_flight = 0;
    absl::Duration compute_time;
    int draft = -1;  // SendWaiting: the call that is being filled
  };
  struct Call {
    Holder* holder = nullptr;
    std::vector<int64_t> pairs;  // by expert, then by row: as the reply's rows
    ExpertReply reply;           // kept: results point into it
  };

  void Begin(const DispatchRequest& request);
  // Takes over members_. A client that stays keeps its record, and so does one
  // that has another's name.
  void ChangeHolders();
  std::unique_ptr<Holder> NewHolder(const ClientSet::Member& member,
                                    const Holder* same_name) const;
  void SortPairsByExpert();
  // Fills in the request's quantised rows if calls need them.
  void Quantize();
  // Sends what waits and has a holder; clients that compute in Forward only if
  // `computing`, all others only if not.
  void SendWaiting(bool computing);
  // Null: none.
  Holder* ChooseHolder(int expert, bool computing, absl::Time now);
  size_t NewCall(Holder* holder);
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
  const Clock& clock_;
  const std::shared_ptr<ReplyInbox> inbox_;
  const std::shared_ptr<BufferPool> buffers_;
  ClientSet& clients_;
  uint64_t clients_version_ = 0;
  std::vector<ClientSet::Member> members_;
  std::vector<std::unique_ptr<Holder>> holders_;  // one for each member

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
  // Not in the set any more; calls point to them.
  std::vector<std::unique_ptr<Holder>> removed_;
  ReplyInbox::News news_;

  // Scratch.
  std::vector<int64_t> begin_;        // SortPairsByExpert
  std::vector<int> candidates_;       // ChooseHolder
  std::vector<int32_t> slot_of_row_;  // MakeCall; [T], -1 between
  std::vector<int32_t> rows_;         // MakeCall
  std::vector<experts::ExpertRun> runs_;
  PooledBuffer quantized_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_DISPATCH_RUN_H_
