#include "switchyard/bench/serving/concurrency.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "switchyard/bench/serving/prompts.h"
#include "switchyard/bench/serving/stream.h"

namespace switchyard::bench {
namespace {

constexpr double kTemperature = 0.7;
// Tokens of a stream that is there to be disturbed.
constexpr int64_t kLongestStream = 32768;

absl::StatusOr<std::shared_ptr<Stream>> Start(ServingModel* model,
                                              ServingEngine* engine,
                                              int64_t prompt_tokens,
                                              int64_t answer_tokens,
                                              uint64_t seed) {
  attention_worker::GenerationRequest request = NewRequest(
      RandomPrompt(prompt_tokens, model->vocab_size(), seed), answer_tokens);
  request.sampling.temperature = kTemperature;
  request.sampling.seed = seed;
  return Stream::Submit(engine->engine(), std::move(request));
}

absl::StatusOr<ConcurrencyMeasurement> MeasureLevel(
    ServingModel* model, const ConcurrencyOptions& options, int64_t streams) {
  ServingModel::EngineSettings settings;
  settings.chunked_prefill_size = options.prefill_chunk;
  settings.max_running_requests = streams;
  settings.prefix_caching = false;
  settings.state_memory_bytes = model->StateBytes(
      0, streams + 1, options.prompt_tokens + options.answer_tokens, 0);
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<ServingEngine> engine,
                      model->NewEngine(settings));
  ConcurrencyMeasurement found;
  found.streams = streams;
  std::vector<double> first;
  std::vector<double> gaps;
  // The first wave touches the states' memory and is not counted.
  for (int64_t wave = 0; wave <= options.waves; ++wave) {
    const int64_t answer = wave == 0
                               ? std::min<int64_t>(2, options.answer_tokens)
                               : options.answer_tokens;
    const int64_t prompt = wave == 0
                               ? std::min<int64_t>(8, options.prompt_tokens)
                               : options.prompt_tokens;
    std::vector<std::shared_ptr<Stream>> open;
    const absl::Time begin = absl::Now();
    for (int64_t i = 0; i < streams; ++i) {
      SY_ASSIGN_OR_RETURN(std::shared_ptr<Stream> stream,
                          Start(model, engine.get(), prompt, answer,
                                static_cast<uint64_t>(wave * streams + i)));
      open.push_back(std::move(stream));
    }
    SY_ASSIGN_OR_RETURN(const std::vector<StreamResult> results,
                        WaitForAll(open));
    if (wave == 0) continue;
    found.seconds += absl::ToDoubleSeconds(absl::Now() - begin);
    for (const StreamResult& result : results) {
      found.output_tokens += static_cast<int64_t>(result.ids.size());
      first.push_back(absl::ToDoubleSeconds(result.TimeToFirstToken()));
      AddGaps(result.times, &gaps);
    }
  }
  found.tokens_per_second =
      static_cast<double>(found.output_tokens) / found.seconds;
  found.first_token = LatencyOf(first);
  found.inter_token = LatencyOf(gaps);
  return found;
}

absl::StatusOr<StallMeasurement> MeasureChunk(ServingModel* model,
                                              const StallOptions& options,
                                              int64_t chunk) {
  // More than is needed, so that no stream ends by itself: this thread may be
  // kept waiting. They are ended when the prompt has been read.
  const int64_t longest = std::min(model->context(), kLongestStream);
  ServingModel::EngineSettings settings;
  settings.chunked_prefill_size = chunk;
  settings.prefix_caching = false;
  settings.state_memory_bytes =
      model->StateBytes(0, options.streams + 1, longest, 0) +
      model->StateBytes(0, 1, options.long_tokens + 1, 0);
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<ServingEngine> engine,
                      model->NewEngine(settings));
  std::vector<std::shared_ptr<Stream>> streams;
  for (int64_t i = 0; i < options.streams; ++i) {
    SY_ASSIGN_OR_RETURN(
        std::shared_ptr<Stream> stream,
        Start(model, engine.get(), options.prompt_tokens,
              longest - options.prompt_tokens, static_cast<uint64_t>(i)));
    streams.push_back(std::move(stream));
  }
  // Prompts are read one after the other: everybody runs when the last one
  // does.
  absl::Time all_run = absl::InfinitePast();
  for (const auto& stream : streams) {
    stream->WaitForTokens(1);
    const StreamResult so_far = stream->SoFar();
    if (so_far.times.empty()) return stream->Wait().status();
    all_run = std::max(all_run, so_far.times.front());
  }
  for (const auto& stream : streams) {
    stream->WaitForTokens(options.alone_tokens);
  }
  SY_ASSIGN_OR_RETURN(const std::shared_ptr<Stream> reader,
                      Start(model, engine.get(), options.long_tokens, 1,
                            static_cast<uint64_t>(options.streams)));
  SY_ASSIGN_OR_RETURN(const StreamResult read, reader->Wait());
  for (const auto& stream : streams) {
    if (static_cast<int64_t>(stream->SoFar().ids.size()) <
        longest - options.prompt_tokens) {
      continue;
    }
    return absl::AbortedError(absl::StrCat(
        "a stream of ", longest, " tokens ended while the prompt of ",
        options.long_tokens, " was read; give a shorter --long-prompt"));
  }
  StallMeasurement found;
  found.chunk = chunk;
  found.long_tokens = options.long_tokens;
  found.long_ttft_seconds = absl::ToDoubleSeconds(read.TimeToFirstToken());
  std::vector<double> alone;
  std::vector<double> beside;
  for (const auto& stream : streams) {
    // The step that ends the prompt gives every stream a token, too, perhaps a
    // moment after the prompt's.
    stream->WaitForTokens(static_cast<int64_t>(stream->SoFar().times.size()) +
                          1);
    const std::vector<absl::Time> times = stream->SoFar().times;
    AddGaps(times, &alone, all_run, read.submitted);
    AddGaps(times, &beside, read.submitted, read.times.front());
  }
  found.gaps_beside = static_cast<int64_t>(beside.size());
  found.alone = LatencyOf(alone);
  found.beside = LatencyOf(beside);
  engine->engine()->Stop();
  return found;
}

}  // namespace

absl::StatusOr<std::vector<ConcurrencyMeasurement>> MeasureConcurrency(
    ServingModel* model, const ConcurrencyOptions& options) {
  std::vector<ConcurrencyMeasurement> all;
  for (const int64_t streams : options.streams) {
    SY_ASSIGN_OR_RETURN(const ConcurrencyMeasurement found,
                        MeasureLevel(model, options, streams));
    all.push_back(found);
  }
  return all;
}

absl::StatusOr<std::vector<StallMeasurement>> MeasureStall(
    ServingModel* model, const StallOptions& options) {
  if (options.long_tokens + 1 > model->context()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the long prompt would have ", options.long_tokens,
        " tokens and one of output; the context of ",
        model->checkpoint().directory(), " is ", model->context()));
  }
  std::vector<StallMeasurement> all;
  for (const int64_t chunk : options.chunks) {
    SY_ASSIGN_OR_RETURN(const StallMeasurement found,
                        MeasureChunk(model, options, chunk));
    all.push_back(found);
  }
  return all;
}

}  // namespace switchyard::bench
