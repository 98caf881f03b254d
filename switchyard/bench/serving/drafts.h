// What drafting brings, and what it costs where it does not pay.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_SERVING_DRAFTS_H_
#define SWITCHYARD_SWITCHYARD_BENCH_SERVING_DRAFTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "switchyard/bench/serving/serving_model.h"

namespace switchyard::bench {

struct DraftsOptions {
  std::vector<int64_t> batches = {1, 4, 16};  // sequences at a time
  int max_depth = 3;
  int64_t prompt_tokens = 32;  // of random prompts
  int64_t answer_tokens = 96;
  int64_t measured_tokens = 1536;  // of output, in one measurement, about
  int64_t repeat = 5;              // rounds; each measures every mode once
};

struct DraftMode {
  int depth = 0;  // at most; 0: none
  bool adaptive = false;

  std::string Name() const;
};

struct DraftsMeasurement {
  int64_t batch = 0;
  DraftMode mode;
  double tokens_per_second = 0;  // the median of the rounds
  // Over that of the same round without drafts: median, least, greatest.
  double to_plain = 1;
  double to_plain_min = 1;
  double to_plain_max = 1;
  // Tokens that a sequence gets of a step, but for the first; the last of an
  // output, where fewer are left to draft, included.
  double tokens_per_step = 1;
  // Drafted tokens that were read, of a sequence and step.
  double drafted_per_step = 0;
};

struct DraftsResult {
  DraftsOptions options;
  bool own_prompts = false;  // else of random tokens
  std::vector<DraftsMeasurement> measurements;
};

// Prompts are the model's own questions if it has some, else random. Half of
// the requests are greedy, half sampled (temperature 0.7). A measurement lasts
// from the first submission to the last token, prompts included: who serves
// pays for the head's reading them, too. Modes take turns, in an order that
// changes from round to round; the first round is not counted.
// FAILED_PRECONDITION: the model has no MTP head.
absl::StatusOr<DraftsResult> MeasureDrafts(ServingModel* model,
                                           const DraftsOptions& options);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_SERVING_DRAFTS_H_
