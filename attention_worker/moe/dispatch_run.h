// One dispatch after another, on the dispatching thread: which calls are made,
// and what is done about failures, slow holders and wrong ones.
//
// Above: expert_dispatcher.h. Below: pair_table.h keeps what is answered,
// holder_table.h what is known of the holders, holder_choice.h picks one,
// call_builder.h makes a call of it, reply_inbox.h brings replies,
// holder_probes.h tries out whoever is not live.

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
#include "absl/types/span.h"
#include "attention_worker/moe/call_builder.h"
#include "attention_worker/moe/client_set.h"
#include "attention_worker/moe/dispatch_metrics.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/moe/hedge_budget.h"
#include "attention_worker/moe/holder_choice.h"
#include "attention_worker/moe/holder_probes.h"
#include "attention_worker/moe/holder_table.h"
#include "attention_worker/moe/pair_table.h"
#include "attention_worker/moe/reply_inbox.h"
#include "base/buffer_pool.h"
#include "base/clock.h"

namespace switchyard::attention_worker {

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
  enum class Kind : uint8_t {
    kRows,   // pairs that nobody else computes, or a wanted second opinion
    kHedge,  // pairs of a call that takes long, within the budget
  };
  struct Call {
    Holder* holder = nullptr;
    int process = 0;  // the holder's, when it was sent
    Kind kind = Kind::kRows;
    uint64_t serial = 0;         // holder_table.h
    std::vector<int64_t> pairs;  // by expert, then by row: as the reply's rows
    absl::Time sent;
    int64_t load = 0;
    // If it is not answered by then: see to it.
    absl::Time look_at;
    bool answered = false;
    // It will hardly be answered: its pairs are not counted as in a call.
    bool given_up = false;
    bool ignored = false;  // its holder is not to be trusted
    bool useful = false;   // it brought some pair's first answer
    ExpertReply reply;     // kept: results point into it
  };
  // Pairs of one expert that want a call: the first ones of wanting_ from
  // `begin`.
  struct Group {
    PairTable::State state = PairTable::State::kWaiting;
    size_t begin = 0;
    size_t end = 0;
  };

  // --- dispatch_run.cc: one dispatch from its beginning to its end. ---
  void Begin(const DispatchRequest& request);
  void SortPairsByExpert();
  // Fills in the request's quantised rows if calls need them.
  void EncodeRows();
  void TakeNews(absl::Time deadline);
  void Accept(size_t call, ExpertReply reply);
  void Refuse(size_t call, const absl::Status& error);
  // Whoever answered this call.
  void Distrust(const Call& call);
  void VoidDistrusted();
  void ExpireSequences(absl::Time now);
  void FailSequence(size_t sequence, absl::Status status);
  absl::Status DeadlineError(size_t sequence) const;
  std::string DescribeHolders() const;
  absl::Time NextEvent(absl::Time now) const;
  DispatchResult Finish();

  // --- dispatch_calls.cc: who gets what, and when again. ---
  // Sends what waits and has a holder; to clients that compute in Forward only
  // if `may_compute`, and then last.
  void SendWaiting(bool may_compute);
  // Nobody can be asked about these any more, or not now.
  void LeaveAsTheyAre(const ExpertRows& rows, const Group& group);
  // Sends these pairs to whom they were given, and some to a second holder.
  void DraftGroup(const ExpertRows& rows, const Group& group, bool may_compute);
  bool WantsVerifying();
  static bool IsAwaited(const Call& call) {
    return !call.answered && !call.given_up && !call.ignored;
  }
  // Calls that should have been answered are hedged or given up.
  void LookAfterCalls(absl::Time now);
  // Those of earlier dispatches tell who hangs.
  void LookAfterHolders(absl::Time now);
  // Its pairs want another call.
  void GiveUp(size_t call);
  // Sends to others what nobody else has been asked for. False: the budget does
  // not allow it now.
  bool Hedge(size_t call, absl::Time now);
  // wanting_, groups_ and rows_ from pairs, which are by expert.
  void BeginGroups();
  void AddToGroups(int64_t pair, const Holder* not_this);
  // False: as many calls are on their way to it as may be.
  bool Draft(Holder* holder, int64_t pair, Kind kind);
  void SendDrafts(size_t first_call);
  void Send(size_t call);
  // Sets look_at.
  void WatchCall(Call* call);
  void WatchCallsAgain();

  const ExpertDispatcherOptions& options_;
  const DispatchMetrics& metrics_;
  const Clock& clock_;
  const std::shared_ptr<ReplyInbox> inbox_;
  const std::shared_ptr<BufferPool> buffers_;
  ClientSet& clients_;
  uint64_t clients_version_ = 0;
  std::vector<ClientSet::Member> members_;
  HolderTable table_;
  HolderChoice choice_;
  HolderProbes probes_;
  HedgeBudget budget_;
  uint64_t random_;  // of WantsVerifying

  // Of this dispatch.
  DispatchRequest request_;
  uint64_t number_ = 0;                // in the inbox
  std::vector<absl::Time> deadlines_;  // [S], max_wait applied
  PairTable pairs_;
  CallBuilder builder_;
  std::vector<int64_t> by_expert_;  // all pairs, by expert, then by row
  std::vector<Call> calls_;         // the first num_calls_ are this dispatch's
  size_t num_calls_ = 0;
  ReplyInbox::News news_;

  // Scratch.
  std::vector<int64_t> begin_;    // SortPairsByExpert
  std::vector<int64_t> wanting_;  // of the groups
  std::vector<Group> groups_;
  std::vector<ExpertRows> rows_;       // one for each group
  std::vector<size_t> wrong_;          // Accept
  std::vector<const Holder*> others_;  // Hedge
  PooledBuffer encoded_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_DISPATCH_RUN_H_
