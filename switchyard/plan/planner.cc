#include "switchyard/plan/planner.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"

namespace switchyard::plan {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;
constexpr int kMaxNodes = 4096;
constexpr int64_t kMostUsers = 1024;  // of the comparison

absl::Status CheckNumbers(const Request& request) {
  const auto in = [](const char* what, int64_t value, int64_t least,
                     int64_t most) -> absl::Status {
    if (value >= least && value <= most) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(what, " ", value, " is not in [", least, ", ", most, "]"));
  };
  SY_RETURN_IF_ERROR(in("--nodes", request.nodes, 2, kMaxNodes));
  SY_RETURN_IF_ERROR(in("--replicas", request.copies, 1, 8));
  SY_RETURN_IF_ERROR(in("--users", request.users, 1, 100'000));
  SY_RETURN_IF_ERROR(
      in("--attention-workers", request.attention_workers, 0, kMaxNodes));
  return in("--context", request.context, 1, int64_t{1} << 24);
}

int64_t SequencesOf(const Request& request, int attention_workers) {
  return (request.users + attention_workers - 1) / attention_workers;
}

// Fewest workers whose memory holds what `bytes_with(workers)` says that each
// needs; nullopt: not with kMaxNodes either. More workers need less each.
template <typename BytesWith>
std::optional<int> Fewest(double room, int least, BytesWith bytes_with) {
  for (int workers = least; workers <= kMaxNodes; ++workers) {
    if (bytes_with(workers) <= room) return workers;
  }
  return std::nullopt;
}

Plan PlanFor(const CostModel& model, const Request& request,
             const Shape& shape) {
  Plan plan;
  plan.shape = shape;
  plan.sequences = SequencesOf(request, shape.attention_workers);
  plan.decode = model.DecodeStep(shape, request.node, request.network,
                                 request.users, request.context);
  plan.tokens_per_second_per_user = 1 / plan.decode.Total();
  plan.tokens_per_second =
      static_cast<double>(request.users) / plan.decode.Total();
  return plan;
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const CostModel& model, const Request& request) {
  SY_RETURN_IF_ERROR(CheckNumbers(request));
  const double room = kUsableShare * request.node.ram_bytes;
  const auto attention_bytes = [&](int workers) {
    return Sum(model.AttentionWorkerMemory(SequencesOf(request, workers),
                                           request.context));
  };
  const auto expert_bytes = [&](int workers) {
    return Sum(model.ExpertWorkerMemory(
        {.expert_workers = workers, .copies = request.copies}));
  };
  const std::optional<int> attention =
      Fewest(room, std::max(1, request.attention_workers), attention_bytes);
  if (!attention) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "a node's %.1f GiB (of %.1f, the rest is the system's) do not hold an "
        "attention worker with one sequence of %d tokens: %.1f GiB. Take nodes "
        "with more memory, or a smaller --format or --kv-cache-dtype",
        room / kGib, request.node.ram_bytes / kGib, request.context,
        Sum(model.AttentionWorkerMemory(1, request.context)) / kGib));
  }
  // No worker can hold two copies of one expert.
  const std::optional<int> experts = Fewest(room, request.copies, expert_bytes);
  if (!experts) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "a node's %.1f GiB do not even hold an expert worker's program and "
        "queue",
        room / kGib));
  }
  // One lost: its share must fit into the others'.
  const int wanted = request.copies > 1 ? *experts + 1 : *experts;
  if (*attention + wanted > request.nodes) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "%d nodes of %.1f GiB are too few: %d attention workers for %d users "
        "at %d tokens and %d expert workers for %d copies of %.1f GiB of "
        "experts%s take %d nodes. Or fewer --replicas, or a smaller --format",
        request.nodes, request.node.ram_bytes / kGib, *attention, request.users,
        request.context, wanted, request.copies, model.ExpertBytes() / kGib,
        request.copies > 1 ? " (one may be lost)" : "", *attention + wanted));
  }

  std::optional<Plan> best;
  for (int a = *attention; a + wanted <= request.nodes; ++a) {
    // One more would have nobody, or is not wanted.
    if (a > *attention &&
        (a > request.users || request.attention_workers > 0)) {
      break;
    }
    Plan plan = PlanFor(model, request,
                        {.attention_workers = a,
                         .expert_workers = request.nodes - a,
                         .copies = request.copies});
    // One more attention worker for a hundredth is not worth its memory.
    if (!best || plan.tokens_per_second > 1.01 * best->tokens_per_second) {
      best = std::move(plan);
    }
  }
  best->least_expert_workers = *experts;
  best->attention_memory =
      model.AttentionWorkerMemory(best->sequences, request.context);
  best->expert_memory = model.ExpertWorkerMemory(best->shape);
  best->prefill = model.PrefillStep(best->shape, request.node, request.network,
                                    kPrefillTokens);
  best->prefill_tokens_per_second = best->shape.attention_workers *
                                    static_cast<double>(kPrefillTokens) /
                                    best->prefill.Total();
  for (int64_t users = 1; users <= kMostUsers; users *= 2) {
    const auto count = static_cast<double>(users);
    best->crossings.push_back(
        {.users = users,
         .cluster_tokens_per_second =
             count / model
                         .DecodeStep(best->shape, request.node, request.network,
                                     users, request.context)
                         .Total(),
         .server_tokens_per_second =
             count / model.DecodeSecondsInProcess(request.server, users,
                                                  request.context)});
  }
  best->server_bytes =
      model.ExpertBytes() +
      Sum(model.AttentionWorkerMemory(request.users, request.context));
  return *std::move(best);
}

}  // namespace switchyard::plan
