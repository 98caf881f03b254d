#include "attention_worker/speculative/options.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace switchyard::attention_worker {

absl::StatusOr<int> DraftTokens(const SpeculativeOptions& options,
                                bool has_mtp) {
  const bool automatic = options.algorithm == "auto";
  if (!automatic && options.algorithm != "NEXTN" &&
      options.algorithm != "NONE") {
    return absl::InvalidArgumentError(
        absl::StrCat("speculative_algorithm is \"", options.algorithm,
                     "\"; it must be auto, NEXTN or NONE"));
  }
  if (options.num_steps < 0 || options.num_steps > kMaxDraftTokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("speculative_num_steps is ", options.num_steps,
                     "; it must be in [0, ", kMaxDraftTokens, "]"));
  }
  if (options.eagle_topk != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("speculative_eagle_topk is ", options.eagle_topk,
                     "; drafts are a chain here, so it must be 1"));
  }
  if (options.num_draft_tokens != 0 &&
      options.num_draft_tokens != options.num_steps + 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "speculative_num_draft_tokens is ", options.num_draft_tokens,
        "; a chain of ", options.num_steps,
        " steps (speculative_num_steps) is verified with ",
        options.num_steps + 1, " tokens"));
  }
  if (options.algorithm == "NONE" || options.num_steps == 0) return 0;
  if (!has_mtp) {
    if (automatic) return 0;
    return absl::FailedPreconditionError(
        "speculative_algorithm is NEXTN, but the model has no mtp.* tensors "
        "(Coder-Next has none); leave it auto, or NONE");
  }
  return options.num_steps;
}

}  // namespace switchyard::attention_worker
