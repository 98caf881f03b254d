// Small calls that show whether a holder computes rightly, and as fast as its
// peers: before a new one gets real rows, and before an ejected one gets them
// again.
//
// Above: dispatch_run.h. Below: holder_table.h keeps the result.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_PROBES_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_PROBES_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/moe/dispatch_metrics.h"
#include "attention_worker/moe/expert_reply.h"
#include "attention_worker/moe/holder_table.h"
#include "attention_worker/moe/probe_disputes.h"
#include "attention_worker/moe/reply_inbox.h"
#include "base/buffer_pool.h"
#include "kernels/matrix.h"

namespace switchyard::attention_worker {

// A probe is one row that depends on (layer, expert) alone, through one expert.
// The right answer is one that was found right before, or the fallback's. Where
// neither is to be had, a live holder is asked the same: if their answers
// differ, either may be wrong, and others decide (moe/probe_disputes.h). Where
// there is nobody, a holder that joins is live unseen: somebody must be first.
//
// Nothing waits for a probe: answers are looked at when they have come. One
// thread.
class HolderProbes {
 public:
  struct Options {
    kernels::RowFormat row_format = kernels::RowFormat::kF32;
    absl::Duration timeout;
  };
  // All outlive this but the inbox, which it shares.
  HolderProbes(const Options& options, HolderTable* table,
               const DispatchMetrics* metrics,
               std::shared_ptr<ReplyInbox> inbox);

  // Sends what is due; of `layer` rather than of others. H = hidden_size.
  void Send(int layer, int64_t hidden_size, absl::Time now);
  // An answer: ticket.call is what Send gave.
  void Arrived(ReplyInbox::Arrival arrival);

 private:
  using Key = std::pair<int, int>;  // layer, expert
  // One holder's probe that is on its way.
  struct Trial {
    uint64_t number = 0;
    ProbeDisputes::Voter subject;
    // A live holder whose answer is compared; none: that answer is right.
    std::optional<ProbeDisputes::Voter> peer;
    Key key;
    absl::Time sent;
    absl::Duration latency;
    std::vector<float> answer;  // empty: not yet
    std::vector<float> right;   // empty: not yet, or not known
    bool compares = false;      // an answer to compare with is there or comes
  };

  void SendTo(Holder* holder, int layer, int64_t hidden_size, absl::Time now);
  // An expert of this holder; the i-th try. False: it has none.
  static bool PickExpert(const Holder& holder, int layer, uint64_t i, Key* key);
  // Null: nobody.
  Holder* Referee(const Holder& subject, const Key& key, absl::Time now) const;
  // A live one other than `subject`, that has not voted if that matters.
  Holder* Peer(const Holder& subject, const Key& key, absl::Time now,
               bool may_have_voted) const;
  // A disputed row that would bring a vote nearer to a verdict.
  bool PickDisputed(const Holder& holder, absl::Time now, Key* key,
                    Holder** referee) const;
  void Forward(Holder* holder, const Key& key, uint64_t call,
               int64_t hidden_size, absl::Time now);
  void MakeRow(const Key& key, int64_t hidden_size);
  void GiveUp(absl::Time now);
  void Judge(const Trial& trial, absl::Time now);
  void Wrong(const ProbeDisputes::Voter& voter);
  // The two answers of a trial are not the same, or others to the same row were
  // not. True: its subject has the right one.
  bool Vote(const Trial& trial, bool same, absl::Time now);
  // Those that no dispute concerns any more.
  void Settle(absl::Time now);
  // Null: another process is there, or nobody.
  Holder* Find(const ProbeDisputes::Voter& voter) const;
  void End(uint64_t number);

  const Options options_;
  HolderTable& table_;
  const DispatchMetrics& metrics_;
  const std::shared_ptr<ReplyInbox> inbox_;
  const std::shared_ptr<BufferPool> buffers_;
  std::vector<Trial> trials_;  // at most one for each holder
  uint64_t next_number_ = 1;
  std::map<Key, std::vector<float>> known_;  // bounded
  ProbeDisputes disputes_;
  // The row that is being sent.
  std::vector<float> row_;
  PooledBuffer encoded_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_PROBES_H_
