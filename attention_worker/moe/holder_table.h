// What a dispatcher knows of each client: one record a holder, kept while it is
// in the set.
//
// Above: dispatch_run.h. Below: client_set.h says who the clients are,
// latency_model.h and holder_health.h have the parts of a record.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_TABLE_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_TABLE_H_

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/moe/client_set.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/holder_health.h"
#include "attention_worker/moe/latency_model.h"
#include "metrics/registry.h"
#include "metrics/series_lease.h"
#include "model/expert_set.h"

namespace switchyard::attention_worker {

// One holder's metrics, by its name. Handles.
struct HolderMetrics {
  HolderMetrics(metrics::Registry* registry, const std::string& worker);

  metrics::SeriesLease lease;  // before the handles
  metrics::Histogram* accept_seconds;
  std::array<metrics::Gauge*, kNumHolderStates> state;
  metrics::Gauge* typical_seconds;
  metrics::Counter* ejected_slow;
  metrics::Counter* ejected_hung;
  metrics::Counter* ejected_wrong;
  metrics::Counter* probes_right;
  metrics::Counter* probes_slow;
  metrics::Counter* probes_failed;
  metrics::Counter* probes_wrong;
  metrics::Counter* probes_disputed;
};

struct Holder {
  // A call that this holder has not answered, of an earlier dispatch perhaps.
  struct Unanswered {
    uint64_t serial = 0;
    absl::Time sent;
    int64_t pairs = 0;  // of this call
    int64_t load = 0;   // with those of calls before it, unanswered then
    bool given_up = false;
  };

  Holder(const HolderHealthOptions& options, std::string holder_name,
         const HolderMetrics& holder_metrics)
      : name(std::move(holder_name)),
        metrics(holder_metrics),
        health(options) {}

  bool Has(int layer, int expert) const {
    return layer < holdings.num_layers() && expert < holdings.num_experts() &&
           holdings.Contains(layer, expert);
  }
  // Pairs that it has not answered.
  int64_t Load() const;

  const std::string name;
  const HolderMetrics metrics;
  uint64_t id = 0;                 // the client's, in the set
  ExpertClient* client = nullptr;  // null once it is not in the set any more
  uint64_t name_hash = 0;
  int process = 0;  // counts its restarts, as far as they were seen
  // Computes here what no other live holder has.
  bool is_fallback = false;
  model::ExpertSet holdings;  // as of the last news
  bool reachable = false;     // holds something

  HolderHealth health;
  LatencyModel latency;
  absl::Time last_answer = absl::InfinitePast();
  // Gets nothing before this, after a failed call.
  absl::Time avoid_until = absl::InfinitePast();
  absl::Duration backoff;
  absl::Status last_error;
  std::vector<Unanswered> unanswered;

  // Of this dispatch.
  int calls_in_flight = 0;
  absl::Duration compute_time;

  // Scratch of whoever gives out rows: what it would have by then, and the call
  // that is being filled.
  int tier = -1;
  int64_t planned_pairs = 0;
  double overdue_seconds = 0;
  int draft = -1;
};

// One thread.
class HolderTable {
 public:
  struct Options {
    HolderHealthOptions health;
    absl::Duration min_hedge_delay;
    absl::Duration min_backoff;
    absl::Duration max_backoff;
    metrics::Registry* registry = nullptr;  // not owned; outlives this
    ExpertClient* fallback = nullptr;       // not owned; null: none
  };
  explicit HolderTable(const Options& options);

  // The set of clients is another: one that stays keeps its record, and so does
  // one that has another's name. Records of those that went stay valid until
  // ForgetRemoved.
  void Change(absl::Span<const ClientSet::Member> members, absl::Time now);
  void ForgetRemoved() { removed_.clear(); }
  // What this one holds is read again.
  void HoldingsChanged(uint64_t id, absl::Time now);

  // Of the clients in the set, in their order.
  absl::Span<const std::unique_ptr<Holder>> present() const { return present_; }
  absl::Span<const std::unique_ptr<Holder>> removed() const { return removed_; }
  Holder* fallback() const { return fallback_.get(); }  // null: none
  // Present or removed; null: neither.
  Holder* Find(uint64_t id) const;

  // The median of what live holders other than `holder` take for `pairs`;
  // infinite if none is known.
  absl::Duration PeersTake(const Holder& holder, int64_t pairs);
  // After how long without an answer a call is sent to another holder, too;
  // infinite: too little is known of such calls. Not above when the holder is
  // taken to hang.
  absl::Duration HedgeAfter(const Holder& holder, int64_t load);
  absl::Duration HangAfter(const Holder& holder, int64_t load);

  // --- What happened to a holder. ---

  // It gets a call of so many pairs: the call's number, of all holders.
  uint64_t Sent(Holder* holder, int64_t pairs, absl::Time now);
  // A call failed.
  void Failed(Holder* holder, const absl::Status& error, absl::Time now);
  // A call with this number was answered, or failed. It may have been there
  // since `not_before`: nobody is called slow for what came unseen.
  void Answered(Holder* holder, uint64_t serial, bool ok, absl::Time arrived,
                absl::Time not_before);
  // This call has been unanswered for so long that the holder seems to hang.
  void GiveUp(Holder* holder, uint64_t serial, absl::Time now);
  void Distrust(Holder* holder);
  // Its state may be another now.
  static void ShowState(const Holder& holder);

 private:
  std::unique_ptr<Holder> NewHolder(const ClientSet::Member& member,
                                    const Holder* same_name, absl::Time now);

  const Options options_;
  std::vector<std::unique_ptr<Holder>> present_;
  std::vector<std::unique_ptr<Holder>> removed_;
  std::unique_ptr<Holder> fallback_;
  // By name, the process that answered wrongly: kept when it goes.
  std::map<std::string, std::string> distrusted_;
  uint64_t next_serial_ = 1;
  std::vector<absl::Duration> scratch_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_TABLE_H_
