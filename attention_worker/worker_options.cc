#include "attention_worker/worker_options.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/cpu_set.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {

absl::Status CheckOptions(const AttentionWorkerOptions& options) {
  if (options.model_dir.empty()) {
    return absl::InvalidArgumentError("no model directory is given");
  }
  if (options.threads < 0 || options.threads > 4096) {
    return absl::InvalidArgumentError(absl::StrCat(
        "threads is ", options.threads, "; it must be 0 (all CPUs) to 4096"));
  }
  SY_RETURN_IF_ERROR(CheckThreads(options.threads, options.cpus));
  if (options.max_model_len < 0 || options.max_model_len == 1 ||
      options.state_memory_bytes < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "context_length is ", options.max_model_len, " and state_memory ",
        options.state_memory_bytes,
        "; give 2 or more tokens, and bytes above 0 (or 0 to let the worker "
        "decide)"));
  }
  const auto at_least_one = [](const char* name, int64_t value) {
    return value >= 1 ? absl::OkStatus()
                      : absl::InvalidArgumentError(absl::StrCat(
                            name, " is ", value, "; it must be 1 or more"));
  };
  SY_RETURN_IF_ERROR(
      at_least_one("max_running_requests", options.max_running_requests));
  SY_RETURN_IF_ERROR(
      at_least_one("max_queued_requests", options.max_queued_requests));
  SY_RETURN_IF_ERROR(
      at_least_one("chunked_prefill_size", options.chunked_prefill_size));
  if (options.experts_memory_bytes < 0 ||
      (options.experts_memory_bytes > 0 && options.expert_clients)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "experts_memory is ", options.experts_memory_bytes,
        "; give bytes, and only where this process computes the experts"));
  }
  if (options.expert_wait_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert_wait_timeout is ",
                     absl::FormatDuration(options.expert_wait_timeout),
                     "; it must be above 0"));
  }
  const auto is_share = [](double share) { return share >= 0 && share <= 1; };
  if (!is_share(options.verify_fraction) || !is_share(options.hedge_share) ||
      options.join_probes < 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "verify_fraction is ", options.verify_fraction, ", hedge_share ",
        options.hedge_share, " and join_probes ", options.join_probes,
        "; give shares from 0 to 1, and 0 or more probes"));
  }
  SY_CHECK(options.registry != nullptr);
  return DraftTokens(options.speculative, /*has_mtp=*/true).status();
}

}  // namespace switchyard::attention_worker
