#include "switchyard/bench/serving/drafts.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "switchyard/bench/serving/prompts.h"
#include "switchyard/bench/serving/samples.h"
#include "switchyard/bench/serving/stream.h"

namespace switchyard::bench {
namespace {

constexpr double kTemperature = 0.7;

struct Mode {
  DraftMode mode;
  std::unique_ptr<ServingEngine> engine;
  std::vector<double> rates;  // by round
  RunnerCounts counts;        // of all rounds
  int64_t requests = 0;
  int64_t tokens = 0;
};

absl::StatusOr<std::vector<Mode>> MakeModes(ServingModel* model,
                                            const DraftsOptions& options,
                                            int64_t batch, int64_t longest) {
  std::vector<DraftMode> wanted = {{.depth = 0}};
  for (int depth = 1; depth <= options.max_depth; ++depth) {
    wanted.push_back({.depth = depth});
  }
  wanted.push_back({.depth = options.max_depth, .adaptive = true});
  std::vector<Mode> modes;
  for (const DraftMode& mode : wanted) {
    ServingModel::EngineSettings settings;
    settings.max_draft_tokens = mode.depth;
    settings.adaptive_drafts = mode.adaptive;
    // What is asked again must cost what it cost before.
    settings.prefix_caching = false;
    settings.state_memory_bytes =
        model->StateBytes(mode.depth, batch + 1, longest, 0);
    Mode made;
    made.mode = mode;
    SY_ASSIGN_OR_RETURN(made.engine, model->NewEngine(settings));
    modes.push_back(std::move(made));
  }
  return modes;
}

// `waves` times `batch` requests together.
absl::Status MeasureOnce(const std::vector<std::vector<int32_t>>& prompts,
                         const DraftsOptions& options, int64_t batch,
                         int64_t waves, int64_t round, Mode* mode) {
  const RunnerCounts before = mode->engine->counts();
  const absl::Time begin = absl::Now();
  int64_t tokens = 0;
  for (int64_t w = 0; w < waves; ++w) {
    std::vector<std::shared_ptr<Stream>> streams;
    for (int64_t b = 0; b < batch; ++b) {
      // The same questions in every mode of a round.
      const int64_t number = (round * waves + w) * batch + b;
      attention_worker::GenerationRequest request =
          NewRequest(prompts[static_cast<size_t>(number) % prompts.size()],
                     options.answer_tokens);
      request.sampling.temperature = number % 2 == 0 ? 0 : kTemperature;
      request.sampling.seed = static_cast<uint64_t>(number);
      SY_ASSIGN_OR_RETURN(
          std::shared_ptr<Stream> stream,
          Stream::Submit(mode->engine->engine(), std::move(request)));
      streams.push_back(std::move(stream));
    }
    SY_ASSIGN_OR_RETURN(const std::vector<StreamResult> results,
                        WaitForAll(streams));
    for (const StreamResult& result : results) {
      tokens += static_cast<int64_t>(result.ids.size());
    }
  }
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  if (round == 0) return absl::OkStatus();
  const RunnerCounts counts = mode->engine->counts() - before;
  mode->rates.push_back(static_cast<double>(tokens) / seconds);
  mode->tokens += tokens;
  mode->requests += waves * batch;
  mode->counts.chunks += counts.chunks;
  mode->counts.draft_rows += counts.draft_rows;
  return absl::OkStatus();
}

DraftsMeasurement Summarise(int64_t batch, const Mode& mode,
                            const Mode& plain) {
  DraftsMeasurement found;
  found.batch = batch;
  found.mode = mode.mode;
  found.tokens_per_second = Median(mode.rates);
  std::vector<double> ratios;
  for (size_t r = 0; r < mode.rates.size(); ++r) {
    ratios.push_back(mode.rates[r] / plain.rates[r]);
  }
  found.to_plain = Median(ratios);
  found.to_plain_min = *std::min_element(ratios.begin(), ratios.end());
  found.to_plain_max = *std::max_element(ratios.begin(), ratios.end());
  // A prompt is one chunk, and gives the first token.
  const double steps = static_cast<double>(mode.counts.chunks - mode.requests);
  if (steps > 0) {
    found.tokens_per_step =
        static_cast<double>(mode.tokens - mode.requests) / steps;
    found.drafted_per_step =
        static_cast<double>(mode.counts.draft_rows) / steps;
  }
  return found;
}

}  // namespace

std::string DraftMode::Name() const {
  if (depth == 0) return "plain";
  return adaptive ? "adaptive" : absl::StrCat("fixed ", depth);
}

absl::StatusOr<DraftsResult> MeasureDrafts(ServingModel* model,
                                           const DraftsOptions& options) {
  if (!model->has_mtp()) {
    return absl::FailedPreconditionError(
        absl::StrCat(model->checkpoint().directory(),
                     " has no MTP head (mtp.* tensors), so nothing drafts"));
  }
  DraftsResult result;
  result.options = options;
  SY_ASSIGN_OR_RETURN(std::vector<std::vector<int32_t>> prompts,
                      OwnPrompts(model->checkpoint().directory()));
  result.own_prompts = !prompts.empty();
  for (uint64_t seed = 0; !result.own_prompts && seed < 256; ++seed) {
    prompts.push_back(
        RandomPrompt(options.prompt_tokens, model->vocab_size(), seed));
  }
  // Each must be one chunk, with all of a wave in one step: long ones stay out.
  const int64_t longest_prompt =
      ServingModel::EngineSettings().chunked_prefill_size /
      *std::max_element(options.batches.begin(), options.batches.end());
  prompts.erase(std::remove_if(prompts.begin(), prompts.end(),
                               [&](const std::vector<int32_t>& prompt) {
                                 return static_cast<int64_t>(prompt.size()) >
                                        longest_prompt;
                               }),
                prompts.end());
  if (prompts.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "no prompt has ", longest_prompt,
        " tokens or fewer, which so many sequences at a time could read in "
        "one step: give a smaller --draft-batch"));
  }
  for (const int64_t batch : options.batches) {
    SY_ASSIGN_OR_RETURN(std::vector<Mode> modes,
                        MakeModes(model, options, batch,
                                  longest_prompt + options.answer_tokens));
    const int64_t waves = std::max<int64_t>(
        1, options.measured_tokens / (batch * options.answer_tokens));
    for (int64_t round = 0; round <= options.repeat; ++round) {
      for (Mode& mode : modes) {
        SY_RETURN_IF_ERROR(
            MeasureOnce(prompts, options, batch, waves, round, &mode));
      }
      // Nobody always comes after the same one.
      std::rotate(modes.begin(), modes.begin() + 2, modes.end());
    }
    std::sort(modes.begin(), modes.end(), [](const Mode& a, const Mode& b) {
      return std::make_pair(a.mode.adaptive, a.mode.depth) <
             std::make_pair(b.mode.adaptive, b.mode.depth);
    });
    for (const Mode& mode : modes) {
      result.measurements.push_back(Summarise(batch, mode, modes.front()));
    }
  }
  return result;
}

}  // namespace switchyard::bench
