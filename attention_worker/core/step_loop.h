// The sequences of an engine and one turn over them. One thread's business: the
// engine's step thread owns it, and tests call Step() by hand.
//
// Above: core/engine.cc brings requests and cancellations from other threads.
// Below: the policy says what a step computes, the runner computes it.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_STEP_LOOP_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_STEP_LOOP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attention_worker/core/draft_stage.h"
#include "attention_worker/core/engine.h"
#include "attention_worker/core/engine_metrics.h"
#include "attention_worker/core/live_sequence.h"
#include "attention_worker/core/request_limits.h"
#include "attention_worker/core/state_transfers.h"
#include "attention_worker/layers/model_runner.h"
#include "attention_worker/layers/mtp_head.h"
#include "attention_worker/layers/step_timer.h"
#include "attention_worker/sampling/sampler.h"
#include "attention_worker/scheduler/policy.h"
#include "attention_worker/state/prefix_cache.h"
#include "attention_worker/state/snapshot_store.h"
#include "attention_worker/state/state_memory.h"
#include "base/clock.h"
#include "base/compute_pool.h"

namespace switchyard::attention_worker {

// Not thread-safe.
class StepLoop {
 public:
  struct Options {
    ModelRunner* runner = nullptr;             // not owned
    StateMemory* memory = nullptr;             // not owned; outlives this
    const SchedulingPolicy* policy = nullptr;  // not owned
    EngineMetrics* metrics = nullptr;          // not owned, not null
    StepTimer* timer = nullptr;                // not owned; may be null
    ComputePool* pool = nullptr;               // not owned, not null
    const Clock* clock = nullptr;
    RequestLimits limits;
    int64_t max_running_requests = 0;
    int64_t chunked_prefill_size = 0;
    bool prefix_caching = true;
    SnapshotStore* store = nullptr;  // not owned; null: memory alone
    MtpHead* mtp_head = nullptr;     // not owned; null: nobody drafts
    bool adaptive_drafts = true;  // else always as many as a state has room for
    // Called when a request is about to get its last word (so that its id is
    // free by then), and whenever the load changed.
    std::function<void(const std::string& id)> on_done;
    std::function<void(const EngineLoad& load)> on_load;
    // Held by every OutgoingState.
    std::weak_ptr<const void> open_transfers;
  };

  explicit StepLoop(Options options);
  // REQUIRES: no sequence is left (FailAll).
  ~StepLoop();

  // REQUIRES: CheckRequest() is OK.
  void Add(const GenerationRequest& request, std::unique_ptr<TokenSink> sink,
           absl::Time submitted);

  // Of a request that cannot be begun: its last word, at once.
  void Refuse(const GenerationRequest& request, std::unique_ptr<TokenSink> sink,
              absl::Time submitted, const absl::Status& status);

  // One turn: ends what is cancelled or expired, plans, computes, samples,
  // hands out. False if there was nothing to do.
  bool Step(const absl::flat_hash_set<std::string>& cancelled);

  bool empty() const { return sequences_.empty(); }

  // Forgets the prefixes kept in memory.
  void FlushCache() {
    while (cache_.EvictOne()) {
    }
  }

  // Ends every sequence with `status`.
  void FailAll(const absl::Status& status);

  // For between two steps.
  StateTransfers* transfers() { return &transfers_; }

 private:
  // Reading a state from disk takes about as long as a step: shorter prefixes
  // are not worth it, neither to read nor to keep.
  static constexpr int64_t kMinTokensOnDisk = 256;

  void EndCancelledAndExpired(const absl::flat_hash_set<std::string>& cancelled,
                              absl::Time now);
  StepPlan MakePlan() const;
  void GiveAndTakeStates(const StepPlan& plan, absl::Time now);
  void GiveState(LiveSequence* sequence);
  // From the longest kept prefix of its tokens, or from nothing.
  std::unique_ptr<SequenceState> RestoreOrCreate(LiveSequence* sequence);
  // What the disk has of the prefix, if it is worth reading, moves into the
  // cache.
  void LoadFromDisk(const Prefix& prefix, int64_t cached_tokens);
  // For transfers: ends the request `id`, and keeps its state.
  absl::StatusOr<KeptPrefix> EndAndKeep(const std::string& id);
  // Of states that nobody runs the least valuable; at last one that is only
  // coming. False: there is none.
  bool EvictOne() { return cache_.EvictOne() || transfers_.EvictOne(); }
  // The cache's, evicting others; null if that does not help.
  StateBlock TakeEvicting(StateBlock (StateMemory::*take)());
  // Keeps the state for others, if it is worth anything, and lets go of it.
  void KeepOrRelease(LiveSequence* sequence);
  // Pages for `tokens` tokens; what others left behind makes room.
  void Grow(SequenceState* state, int64_t tokens);
  void ChargeStates();
  // Sequences of which everything was restored have nothing left to read: their
  // next token follows from their last one's hidden state.
  void SampleRestored();
  // One entry of a plan on its way through a step.
  struct Work;
  Work MakeWork(LiveSequence* sequence, int64_t num_tokens);
  void TakeSnapshotBlocks(Work* work);
  void KeepSnapshots(const Work& work);
  // Pairs of `tokens` tokens that the MTP head did not read will stay zeros.
  void SettlePairs(SequenceState* state, int64_t tokens) const;
  // After a step: what of its snapshots others are likely to share.
  void SaveSharedPrefixes(const std::vector<Work>& works);
  void Compute(const StepPlan& plan, absl::Time now);
  // What the output's grammar allows after each of the drafts before, and
  // before the first; up to the first draft that it does not allow. Empty:
  // there is no grammar.
  static std::vector<std::vector<uint64_t>> MasksOf(
      LiveSequence* sequence, absl::Span<const int32_t> drafts);
  // The next token of every work whose chunk asked for logits and got them.
  std::vector<std::vector<SampledToken>> SampleAll(
      const std::vector<Work>& works,
      const std::vector<ChunkResult>& results) const;
  void Advance(const Work& work, const ChunkResult& result,
               std::vector<SampledToken> sampled, absl::Time now);
  // What was drafted and what of it is right, for the state.
  void TakeVerified(const Work& work, const ChunkResult& result,
                    int64_t accepted);
  void DraftNext(std::vector<Work>* works,
                 const std::vector<ChunkResult>& results);
  // Pages for drafts, if nobody else may need them.
  bool MakeRoomForDrafts(SequenceState* state, int64_t tokens);
  SampleJob JobOf(LiveSequence* sequence,
                  const std::vector<float>& logits) const;
  void Extend(LiveSequence* sequence, SampledToken sampled, absl::Time now);
  void FinishIfComplete(LiveSequence* sequence, absl::Time now);
  void Finish(LiveSequence* sequence, const absl::Status& status,
              FinishReason reason, absl::Time now);
  void ReleaseState(LiveSequence* sequence);
  void RemoveFinished();
  void ReportLoad();

  const Options options_;
  StepBudget budget_;
  PrefixCache cache_;
  StateTransfers transfers_;
  DraftStage drafts_;
  std::vector<std::unique_ptr<LiveSequence>> sequences_;  // in order of arrival
  int64_t running_ = 0;           // sequences that hold a state
  int64_t state_bytes_used_ = 0;  // the sum of their charges
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_STEP_LOOP_H_
