// Where each (row, expert) pair of a dispatch is, and how each of its sequences
// fares.
//
// Above: dispatch_run.h, which makes the calls that pairs are in. Not here:
// holders, time.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_PAIR_TABLE_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_PAIR_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "attention_worker/moe/expert_dispatcher.h"

namespace switchyard::attention_worker {

// A pair may be in several calls at a time, at different holders; the first
// answer counts, every further one is compared with it.
//
//   kWaiting  in no call, no answer
//   kInFlight in calls, no answer
//   kHalf     one answer, of a pair that is to be verified: wants another
//             holder's, or to be taken as it is (Settle)
//   kDisputed two answers that differ: wants a third one, or another judgement
//             (Settle)
//   kDone     the answer stands, until one comes that differs
//   kFailed   with its sequence, for good
//
// kWaiting <-> kInFlight -> kHalf -> kDone, kInFlight -> kDone; kHalf and kDone
// -> kDisputed -> kDone; kHalf, kDisputed and kDone back to kWaiting or
// kInFlight when the answers' holders turn out to be wrong (Forget).
//
// Keeps its memory from one dispatch to the next. One thread.
class PairTable {
 public:
  enum class State : uint8_t {
    kWaiting,
    kInFlight,
    kHalf,
    kDisputed,
    kDone,
    kFailed
  };
  enum class Outcome : uint8_t {
    kAccepted,   // the first answer, and enough
    kHalf,       // the first of two
    kAgreed,     // equal to the first, to the bit
    kDiffers,    // from the first: disputed now
    kDecided,    // a dispute: equal to one of the two, which stands
    kNoneAgree,  // a dispute: equal to neither; disputed as before
    kIgnored,    // the sequence has failed
  };
  // Two answers that differ, by call.
  struct Dispute {
    int64_t pair = 0;
    int32_t calls[2] = {-1, -1};
    const float* outputs[2] = {nullptr, nullptr};
  };

  // `request` and what it points to outlive the dispatch.
  // `believe_first`: a seeded fault, answers are not compared.
  void Begin(const DispatchRequest* request, bool believe_first);

  int64_t size() const { return static_cast<int64_t>(states_.size()); }
  State state(int64_t pair) const { return states_[pair]; }
  // Of a pair with an answer: the call that brought it, and where it lies.
  int32_t answered_by(int64_t pair) const { return answered_by_[pair]; }
  // Calls that carry the pair and may still be answered.
  int copies(int64_t pair) const { return copies_[pair]; }
  // Whether one more call should carry it.
  bool WantsCall(int64_t pair) const {
    const State state = states_[pair];
    return state == State::kWaiting ||
           ((state == State::kHalf || state == State::kDisputed) &&
            copies_[pair] == 0);
  }
  int64_t num_unfinished() const { return num_unfinished_; }
  // Pairs that WantsCall() holds for.
  int64_t num_wanting() const { return num_wanting_; }
  int64_t num_half() const { return num_half_; }

  int64_t row(int64_t pair) const { return pair / request_->experts_per_row; }
  size_t sequence(int64_t pair) const {
    return static_cast<size_t>(request_->sequence_of_row[row(pair)]);
  }
  int expert(int64_t pair) const { return request_->experts[pair]; }

  // Before it is in any call: it needs two answers that agree.
  void Verify(int64_t pair) { verify_[pair] = true; }
  bool verified(int64_t pair) const { return verify_[pair]; }

  // A call takes it along; a call that did will not answer.
  void Sent(int64_t pair);
  void Lost(int64_t pair);
  // A call answered: H floats at `output`, valid as long as the dispatch.
  Outcome Answered(int64_t pair, int32_t call, const float* output);
  // kHalf: what there is counts. kDisputed: the answer of this call counts.
  void Settle(int64_t pair, int32_t call);
  // kHalf, kDisputed or kDone: as if it had never been answered.
  void Forget(int64_t pair);

  // kDisputed: its answers so far.
  const Dispute& dispute(int64_t pair) const {
    return disputes_[FindDispute(pair)];
  }

  void FailSequence(size_t sequence, absl::Status status);
  int64_t unfinished(size_t sequence) const { return unfinished_[sequence]; }
  size_t num_sequences() const { return unfinished_.size(); }

  absl::Span<const float* const> outputs() const { return outputs_; }
  absl::Span<const absl::Status> sequence_status() const {
    return sequence_status_;
  }

 private:
  // Every change of a pair's state or copies: keeps the counts.
  void Move(int64_t pair, State state, int copies);
  size_t FindDispute(int64_t pair) const;
  void EndDispute(size_t index);
  bool SameBits(const float* a, const float* b) const;

  const DispatchRequest* request_ = nullptr;
  bool believe_first_ = false;
  std::vector<State> states_;          // [T * K]
  std::vector<uint8_t> copies_;        // [T * K]
  std::vector<bool> verify_;           // [T * K]
  std::vector<int32_t> answered_by_;   // [T * K]
  std::vector<const float*> outputs_;  // [T * K]
  std::vector<Dispute> disputes_;
  std::vector<int64_t> unfinished_;  // [S] pairs of each sequence
  std::vector<absl::Status> sequence_status_;
  int64_t num_unfinished_ = 0;
  int64_t num_wanting_ = 0;
  int64_t num_half_ = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_PAIR_TABLE_H_
