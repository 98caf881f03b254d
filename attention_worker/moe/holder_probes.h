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
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/moe/dispatch_metrics.h"
#include "attention_worker/moe/expert_reply.h"
#include "attention_worker/moe/holder_table.h"
#include "attention_worker/moe/reply_inbox.h"
#include "base/buffer_pool.h"

namespace switchyard::attention_worker {

// A probe is one row that depends on (layer, expert) alone, through one expert.
// The right answer is one that was found right before, or the fallback's, or
// that of a live holder, which is asked the same. Where none of these is to be
// had, a holder that joins is live unseen: somebody must be the first.
//
// Nothing waits for a probe: answers are looked at when they have come. One
// thread.
class HolderProbes {
 public:
  struct Options {
    bool quantize_rows = false;
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
    uint64_t holder = 0;  // its id
    int process = 0;
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
  void Forward(Holder* holder, const Key& key, uint64_t call,
               int64_t hidden_size, absl::Time now);
  void MakeRow(const Key& key, int64_t hidden_size);
  void GiveUp(absl::Time now);
  void Judge(const Trial& trial, absl::Time now);
  void End(uint64_t number);

  const Options options_;
  HolderTable& table_;
  const DispatchMetrics& metrics_;
  const std::shared_ptr<ReplyInbox> inbox_;
  const std::shared_ptr<BufferPool> buffers_;
  std::vector<Trial> trials_;  // at most one for each holder
  uint64_t next_number_ = 1;
  std::map<Key, std::vector<float>> known_;  // bounded
  // The row that is being sent.
  std::vector<float> row_;
  PooledBuffer quantized_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_PROBES_H_
