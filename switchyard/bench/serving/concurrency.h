// Many streams at a time: what all get together, and what each feels.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_SERVING_CONCURRENCY_H_
#define SWITCHYARD_SWITCHYARD_BENCH_SERVING_CONCURRENCY_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "switchyard/bench/serving/samples.h"
#include "switchyard/bench/serving/serving_model.h"

namespace switchyard::bench {

struct ConcurrencyOptions {
  std::vector<int64_t> streams = {1, 2, 4, 8, 16, 32, 64};
  int64_t prompt_tokens = 64;
  int64_t answer_tokens = 32;
  int64_t waves = 2;  // of a measurement
  int64_t prefill_chunk = 1024;
};

struct ConcurrencyMeasurement {
  int64_t streams = 0;
  int64_t output_tokens = 0;  // of all waves
  double seconds = 0;         // from submissions to last tokens, of all waves
  double tokens_per_second = 0;  // output tokens, prompts' time included
  Latency first_token;           // since the submission
  Latency inter_token;
};

// `streams` requests are submitted at once, and again when all have ended.
// Random prompts of which none begin alike, temperature 0.7, no drafts.
// INVALID_ARGUMENT: longer than the model's context.
absl::StatusOr<std::vector<ConcurrencyMeasurement>> MeasureConcurrency(
    ServingModel* model, const ConcurrencyOptions& options);

struct StallOptions {
  std::vector<int64_t> chunks = {64, 256, 1024};  // --chunked-prefill-size
  int64_t streams = 4;
  int64_t prompt_tokens = 32;  // of each stream
  int64_t long_tokens = 16384;
  int64_t alone_tokens = 64;  // of each stream, before the long prompt comes
};

struct StallMeasurement {
  int64_t chunk = 0;
  int64_t long_tokens = 0;
  double long_ttft_seconds = 0;
  int64_t gaps_beside = 0;  // between tokens of streams, while it was read
  Latency alone;            // inter-token, before
  Latency beside;           // inter-token, while it was read
};

// Streams decode; then a long prompt is read beside them, in chunks of each of
// the sizes in turn. No drafts. Errors as MeasureConcurrency.
absl::StatusOr<std::vector<StallMeasurement>> MeasureStall(
    ServingModel* model, const StallOptions& options);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_SERVING_CONCURRENCY_H_
