// Which holder gets an expert's rows, where there are several.
//
// Above: dispatch_run.h. Below: holder_table.h has what is known of them.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_CHOICE_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_CHOICE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/moe/holder_table.h"

namespace switchyard::attention_worker {

// Some rows of one expert, for one holder.
struct ExpertRows {
  int expert = 0;
  int64_t pairs = 0;
  // Not to these; null: nobody.
  std::array<const Holder*, 3> except = {nullptr, nullptr, nullptr};
  Holder* chosen = nullptr;  // null: there is none now
};

// Experts with one holder first; then each to the holder that would be through
// with it first, by its queue and its measured times; a holder that has none of
// the step's rows yet counts as later by what one more call costs the sender.
// Among holders that are about equal to those that have rows already, and then
// by a hash of (layer, expert, name): so a single row's experts go to few
// holders, and all attention workers bring an expert's rows to the same one,
// where they share a batch.
//
// Holders that are not live get rows only if no live one has the expert, after
// the fallback. One thread.
class HolderChoice {
 public:
  // Whom rows may go to.
  enum class Who {
    kAnyone,
    kHealthy,  // live holders
  };

  // `table` outlives this, `policy` too.
  HolderChoice(HolderTable* table, const HolderPolicy* policy)
      : table_(*table), policy_(*policy) {}

  // A round begins, with what is known now.
  void Begin(int layer, absl::Time now, Who who);
  // Chooses for all; what is chosen counts in later choices of this round.
  void Choose(absl::Span<ExpertRows> rows);

  // Whether anyone who may be asked now or later has it.
  bool AnyoneHas(int layer, const ExpertRows& rows) const;

 private:
  void Collect(const ExpertRows& rows);
  Holder* Best(const ExpertRows& rows) const;
  double Completion(Holder& holder, int64_t pairs) const;

  HolderTable& table_;
  const HolderPolicy& policy_;
  int layer_ = 0;
  absl::Time now_;
  std::vector<Holder*> usable_;  // of this round
  std::vector<Holder*> candidates_;
  std::vector<int> indices_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_HOLDER_CHOICE_H_
