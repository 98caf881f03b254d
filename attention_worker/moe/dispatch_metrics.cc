#include "attention_worker/moe/dispatch_metrics.h"

namespace switchyard::attention_worker {
namespace {

metrics::Histogram* AddPart(metrics::Registry* registry, const char* part) {
  return registry->AddHistogram(
      "switchyard_moe_dispatch_part_seconds",
      "Time of one layer-step's dispatch on the step thread, by part: "
      "quantising the rows, sending the calls, the work that overlaps (the "
      "shared expert), waiting for replies.",
      metrics::ShortSecondsBuckets(), {{"part", part}});
}

metrics::Counter* AddHedges(metrics::Registry* registry, const char* result) {
  return registry->AddCounter(
      "switchyard_moe_hedges_total",
      "Calls sent to a second holder because the first one took long, by which "
      "of them answered first.",
      {{"result", result}});
}

metrics::Counter* AddVerified(metrics::Registry* registry, const char* result) {
  return registry->AddCounter(
      "switchyard_moe_verified_pairs_total",
      "(row, expert) pairs chosen to be computed by two holders, by result; "
      "alone: no second one was to be had.",
      {{"result", result}});
}

}  // namespace

DispatchMetrics::DispatchMetrics(metrics::Registry* registry)
    : seconds(registry->AddHistogram(
          "switchyard_moe_dispatch_seconds",
          "Time of one layer-step's dispatch, the shared expert included.",
          metrics::ShortSecondsBuckets())),
      quantize_seconds(AddPart(registry, "quantize")),
      send_seconds(AddPart(registry, "send")),
      overlap_seconds(AddPart(registry, "overlap")),
      wait_seconds(AddPart(registry, "wait")),
      pairs(registry->AddCounter("switchyard_moe_dispatched_pairs_total",
                                 "(row, expert) pairs dispatched.")),
      resent_pairs(registry->AddCounter(
          "switchyard_moe_resent_pairs_total",
          "(row, expert) pairs sent again after a holder failed.")),
      resent_calls(registry->AddCounter(
          "switchyard_moe_resent_calls_total",
          "Calls sent to another holder because the first one hangs, or is not "
          "among the workers any more.")),
      hedges_won(AddHedges(registry, "won")),
      hedges_lost(AddHedges(registry, "lost")),
      verified_agreed(AddVerified(registry, "agreed")),
      verified_differed(AddVerified(registry, "differed")),
      verified_alone(AddVerified(registry, "alone")),
      mismatches(registry->AddCounter(
          "switchyard_moe_result_mismatch_total",
          "Outputs of two holders of an expert, for the same row, that differ: "
          "one of them computes wrongly.")),
      failed_sequences(registry->AddCounter(
          "switchyard_moe_failed_sequences_total",
          "Sequences failed in a dispatch: experts without a holder.")),
      late_replies(registry->AddCounter(
          "switchyard_moe_late_replies_total",
          "Replies that came after their dispatch had ended; dropped.")) {}

}  // namespace switchyard::attention_worker
