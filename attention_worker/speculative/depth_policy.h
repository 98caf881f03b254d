// How many tokens to draft for each sequence of the next step.
//
// A drafted token costs a row in every layer, and with sparse experts a row is
// not nearly free on a CPU: its experts' weights must be read. What it brings
// is its chance of being right. So a row is drafted if, by what was measured
// here, it makes the whole step's tokens a second more, and not otherwise:
// depth follows a request's text and the machine's load, down to zero.

#ifndef SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_DEPTH_POLICY_H_
#define SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_DEPTH_POLICY_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/speculative/acceptance.h"

namespace switchyard::attention_worker {

// Of one thread, the step's. Decisions follow from the calls' arguments alone.
class DepthPolicy {
 public:
  struct Options {
    int max_depth = 0;     // >= 0
    bool adaptive = true;  // false: always max_depth
  };
  explicit DepthPolicy(const Options& options) : options_(options) {}

  // A step that decoded `sequences` (>= 1) and verified `draft_rows` drafted
  // rows beside took so long, without drafting. Steps with prompts do not
  // count.
  void ObserveStep(int64_t sequences, int64_t draft_rows,
                   absl::Duration duration);
  // Drafting `draft_rows` (>= 1) for `sequences` took so long.
  void ObserveDrafting(int64_t sequences, int64_t draft_rows,
                       absl::Duration duration);

  // Whether the head should read a new sequence's prompt, so that it can draft
  // for it. While drafts do not pay, one sequence in kWatchedSequences still
  // does, to see when they would.
  bool Admit();

  // One depth each, in [0, max_depth], for sequences that decode together next,
  // with others that do not draft: `together` in all. Now and then one that a
  // measurement needs.
  std::vector<int> Choose(absl::Span<const Acceptance* const> sequences,
                          int64_t together);

 private:
  // A moving average that takes its first value as it is.
  class Average {
   public:
    bool measured() const { return measured_; }
    double value() const { return value_; }
    void Add(double value);

   private:
    bool measured_ = false;
    double value_ = 0;
  };
  // Of steps with so many sequences, in seconds.
  struct Cost {
    Average plain;           // without drafts
    Average verify_row;      // more for each drafted row
    Average draft_row;       // to draft one
    int64_t steps = 0;       // chosen since the last measurement out of turn
    int64_t next_probe = 0;  // how many there are to be

    bool measured() const {
      return plain.measured() && verify_row.measured() && draft_row.measured();
    }
    double row() const { return verify_row.value() + draft_row.value(); }
  };

  Cost& CostOf(int64_t sequences);
  // The measured cost for the nearest number of sequences; null if there is
  // none.
  const Cost* Nearest(int64_t sequences) const;
  std::vector<int> Best(absl::Span<const Acceptance* const> sequences,
                        int64_t together, const Cost& cost) const;

  const Options options_;
  // How many of the last decisions were to draft: a moving average.
  double drafting_ = 1;
  int64_t refused_ = 0;  // sequences, since the last one that was watched
  std::map<int64_t, Cost> costs_;  // by sequences, at most kMostSequences
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SPECULATIVE_DEPTH_POLICY_H_
