#include "attention_worker/scheduler/policy.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace switchyard::attention_worker {

std::string StepPlan::DebugString() const {
  return absl::StrCat(
      "preempt {", absl::StrJoin(preempt, ","), "} admit {",
      absl::StrJoin(admit, ","), "} compute {",
      absl::StrJoin(entries, ",",
                    [](std::string* out, const StepEntry& entry) {
                      absl::StrAppend(out, entry.sequence, ":",
                                      entry.num_tokens);
                    }),
      "}");
}

}  // namespace switchyard::attention_worker
