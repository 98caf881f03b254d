#include "switchyard/plan/plan_report.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/json.h"

namespace switchyard::plan {
namespace {

constexpr double kGib = 1024.0 * 1024 * 1024;

void PrintMemory(const char* who, int count,
                 const std::vector<MemoryPart>& parts, std::ostream& out) {
  out << absl::StrFormat("%d %s, each\n", count, who);
  for (const MemoryPart& part : parts) {
    out << absl::StrFormat("  %-36s %8.2f GiB\n", part.what, part.bytes / kGib);
  }
  out << absl::StrFormat("  %-36s %8.2f GiB\n\n", "together",
                         Sum(parts) / kGib);
}

void PrintStep(const char* what, const StepTime& time, std::ostream& out) {
  out << absl::StrFormat(
      "%s: %.1f ms\n"
      "  attention %.1f, experts %.1f, wire %.1f, dispatch %.1f, queueing %.1f "
      "ms; expert workers %.0f %% busy\n"
      "  bound by %s\n",
      what, 1e3 * time.Total(), 1e3 * time.attention, 1e3 * time.experts,
      1e3 * time.wire, 1e3 * time.dispatch, 1e3 * time.queueing,
      100 * time.expert_busy, time.Bound());
}

void PrintCrossings(const Request& request, const Plan& plan,
                    const ReportOptions& options, std::ostream& out) {
  out << absl::StrFormat(
      "\nBeside one server (%d cores, %.0f GB/s, %.0f GiB for these users)\n"
      "  users   cluster tok/s   server tok/s\n",
      options.server_cores, request.server.read_bytes / 1e9,
      plan.server_bytes / kGib);
  const Crossing* first = nullptr;
  for (const Crossing& c : plan.crossings) {
    out << absl::StrFormat("  %5d   %13.1f   %12.1f\n", c.users,
                           c.cluster_tokens_per_second,
                           c.server_tokens_per_second);
    const bool ahead =
        c.cluster_tokens_per_second >= c.server_tokens_per_second;
    if (!ahead) first = nullptr;
    if (ahead && first == nullptr) first = &c;
  }
  if (first == nullptr) {
    out << "  The one server is faster at every number of users, if it has "
           "the memory.\n";
  } else {
    out << absl::StrFormat("  The cluster is faster from about %d user%s on.\n",
                           first->users, first->users == 1 ? "" : "s");
  }
}

void PrintValues(const Request& request, const Plan& plan,
                 const ReportOptions& options, std::ostream& out) {
  // Two cores for the system and the pod network. One worker a node: it may
  // have all memory that is planned with, for more states, or more copies.
  const int64_t cpus = std::max<int64_t>(1, options.cores - 2);
  const auto gib =
      static_cast<int64_t>(kUsableShare * request.node.ram_bytes / kGib);
  const int64_t floor =
      plan.least_expert_workers + (request.copies > 1 ? 1 : 0);
  // What is left of that for experts: all but the parts that are none.
  double beside = Sum(plan.expert_memory);
  for (const MemoryPart& part : plan.expert_memory) {
    if (part.what == "experts" || part.what == "uneven shares") {
      beside -= part.bytes;
    }
  }
  const int64_t experts_gib =
      gib - static_cast<int64_t>(std::ceil(beside / kGib));
  const auto resources = [&](const char* kind, const char* name) {
    out << absl::StrFormat(
        "  - target: {kind: %s, name: %s}\n"
        "    patch: |-\n"
        "      - op: replace\n"
        "        path: /spec/template/spec/containers/0/resources\n"
        "        value:\n"
        "          requests: {cpu: \"%d\", memory: %dGi}\n"
        "          limits: {cpu: \"%d\", memory: %dGi}\n",
        kind, name, cpus, gib, cpus, gib);
  };
  out << "\n# For an overlay of deploy/k8s; with components/hpa or keda leave "
         "out\n# `replicas` of the workers.\n"
      << absl::StrFormat(
             "configMapGenerator:\n"
             "  - name: switchyard-expert-worker\n"
             "    behavior: merge\n"
             "    literals:\n"
             "      - SWITCHYARD_REPLICAS=%d\n"
             "      - SWITCHYARD_MEMORY_GIB=%d\n"
             "replicas:\n"
             "  - {name: switchyard-router, count: 2}\n"
             "  - {name: switchyard-attention-worker, count: %d}\n"
             "  - {name: switchyard-expert-worker, count: %d}\n"
             "# minReplicas of the expert workers' scaler: %d\n"
             "patches:\n",
             request.copies, experts_gib, plan.shape.attention_workers,
             plan.shape.expert_workers, floor);
  resources("StatefulSet", "switchyard-attention-worker");
  resources("Deployment", "switchyard-expert-worker");
}

}  // namespace

void PrintPlan(const CostModel& model, const Request& request, const Plan& plan,
               const ReportOptions& options, std::ostream& out) {
  out << absl::StrFormat(
      "Experts %.1f GiB (%.2f MiB each), other weights %.1f GiB, a sequence of "
      "%d tokens %.0f MiB\n\n",
      model.ExpertBytes() / kGib, model.OneExpertBytes() * 1024 / kGib,
      model.DenseBytes() / kGib, request.context,
      model.SequenceBytes(request.context) * 1024 / kGib);
  PrintMemory("attention workers", plan.shape.attention_workers,
              plan.attention_memory, out);
  PrintMemory("expert workers", plan.shape.expert_workers, plan.expert_memory,
              out);
  out << absl::StrFormat("%d users, %d to an attention worker, on %s\n",
                         request.users, plan.sequences, request.network.name);
  PrintStep("A token", plan.decode, out);
  out << absl::StrFormat("  %.1f tokens/s a user, %.0f in all\n",
                         plan.tokens_per_second_per_user,
                         plan.tokens_per_second);
  PrintStep("Reading 1,024 tokens of a prompt", plan.prefill, out);
  out << absl::StrFormat("  %.0f tokens/s in all\n",
                         plan.prefill_tokens_per_second);
  PrintCrossings(request, plan, options, out);
  PrintValues(request, plan, options, out);
}

std::string PlanJson(const Request& request, const Plan& plan) {
  const auto step = [](const StepTime& time) -> Json {
    return {{"seconds", time.Total()},         {"attention", time.attention},
            {"experts", time.experts},         {"wire", time.wire},
            {"dispatch", time.dispatch},       {"queueing", time.queueing},
            {"expert_busy", time.expert_busy}, {"bound", time.Bound()}};
  };
  Json crossings = Json::array();
  for (const Crossing& c : plan.crossings) {
    crossings.push_back(
        {{"users", c.users},
         {"cluster_tokens_per_second", c.cluster_tokens_per_second},
         {"server_tokens_per_second", c.server_tokens_per_second}});
  }
  return DumpJson(
      {{"users", request.users},
       {"context", request.context},
       {"attention_workers", plan.shape.attention_workers},
       {"expert_workers", plan.shape.expert_workers},
       {"copies", plan.shape.copies},
       {"attention_bytes", Sum(plan.attention_memory)},
       {"expert_bytes", Sum(plan.expert_memory)},
       {"decode", step(plan.decode)},
       {"prefill", step(plan.prefill)},
       {"tokens_per_second_per_user", plan.tokens_per_second_per_user},
       {"tokens_per_second", plan.tokens_per_second},
       {"prefill_tokens_per_second", plan.prefill_tokens_per_second},
       {"crossings", std::move(crossings)}});
}

}  // namespace switchyard::plan
