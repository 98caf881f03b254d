#include "switchyard/bench/serving/conversation.h"

#include <cstddef>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "switchyard/bench/serving/prompts.h"
#include "switchyard/bench/serving/samples.h"
#include "switchyard/bench/serving/stream.h"

namespace switchyard::bench {
namespace {

// Tokens of the prompt that comes before anything is measured: threads and
// memory are awake then.
constexpr int64_t kWarmUpTokens = 64;
constexpr uint64_t kWarmUpSeed = 1'000'000;

absl::Status CheckLength(const char* what, int64_t tokens,
                         const ServingModel& model) {
  if (tokens <= model.context()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, " would have ", tokens, " tokens; the context of ",
                   model.checkpoint().directory(), " is ", model.context()));
}

// One request alone, and the rows that the model read of its prompt.
struct Answer {
  StreamResult result;
  int64_t computed_tokens = 0;
};

absl::StatusOr<Answer> Ask(ServingEngine* engine, std::vector<int32_t> prompt,
                           std::vector<int64_t> boundaries, int64_t tokens) {
  attention_worker::GenerationRequest request =
      NewRequest(std::move(prompt), tokens);
  request.prefix_boundaries = std::move(boundaries);
  request.sampling.temperature = 0;
  const RunnerCounts before = engine->counts();
  SY_ASSIGN_OR_RETURN(const std::shared_ptr<Stream> stream,
                      Stream::Submit(engine->engine(), std::move(request)));
  Answer answer;
  SY_ASSIGN_OR_RETURN(answer.result, stream->Wait());
  // Every token but the last is read once more than the prompt's are.
  answer.computed_tokens = (engine->counts() - before).rows -
                           (static_cast<int64_t>(answer.result.ids.size()) - 1);
  return answer;
}

absl::Status WarmUp(ServingEngine* engine, int64_t vocab_size) {
  return Ask(engine, RandomPrompt(kWarmUpTokens, vocab_size, kWarmUpSeed), {},
             4)
      .status();
}

absl::StatusOr<std::vector<ConversationTurn>> Converse(
    ServingModel* model, ServingEngine* engine,
    const ConversationOptions& options, int64_t number) {
  std::vector<ConversationTurn> turns;
  std::vector<int32_t> said;
  std::vector<int64_t> boundaries;
  for (int64_t t = 0; t < options.turns; ++t) {
    ConversationTurn turn;
    turn.new_tokens = t == 0 ? options.first_tokens : options.turn_tokens;
    const std::vector<int32_t> words =
        RandomPrompt(turn.new_tokens, model->vocab_size(),
                     static_cast<uint64_t>(number * options.turns + t));
    if (!said.empty()) {
      boundaries.push_back(static_cast<int64_t>(said.size()));
    }
    said.insert(said.end(), words.begin(), words.end());
    turn.prompt_tokens = static_cast<int64_t>(said.size());
    SY_ASSIGN_OR_RETURN(const Answer answer,
                        Ask(engine, said, boundaries, options.answer_tokens));
    turn.cached_tokens = answer.result.usage.cached_prompt_tokens;
    turn.computed_tokens = answer.computed_tokens;
    turn.ttft_seconds = absl::ToDoubleSeconds(answer.result.TimeToFirstToken());
    turns.push_back(turn);
    boundaries.push_back(turn.prompt_tokens);
    said.insert(said.end(), answer.result.ids.begin(), answer.result.ids.end());
  }
  return turns;
}

}  // namespace

absl::StatusOr<ConversationResult> MeasureConversation(
    ServingModel* model, const ConversationOptions& options) {
  const int64_t longest = options.first_tokens +
                          options.turns * options.answer_tokens +
                          (options.turns - 1) * options.turn_tokens;
  SY_RETURN_IF_ERROR(CheckLength("the conversation", longest, *model));
  ServingModel::EngineSettings settings;
  settings.chunked_prefill_size = options.prefill_chunk;
  // One that runs, and what two conversations leave behind.
  settings.state_memory_bytes =
      model->StateBytes(0, 1, longest, 4 * options.turns + 8);
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<ServingEngine> engine,
                      model->NewEngine(settings));
  SY_RETURN_IF_ERROR(WarmUp(engine.get(), model->vocab_size()));
  ConversationResult result;
  result.options = options;
  std::vector<std::vector<double>> ttfts(static_cast<size_t>(options.turns));
  std::vector<double> shares;
  for (int64_t i = 0; i < options.repeat; ++i) {
    SY_ASSIGN_OR_RETURN(result.turns,
                        Converse(model, engine.get(), options, i));
    for (size_t t = 0; t < result.turns.size(); ++t) {
      ttfts[t].push_back(result.turns[t].ttft_seconds);
    }
    if (options.turns > 1) {
      shares.push_back(result.turns[1].ttft_seconds /
                       result.turns[0].ttft_seconds);
    }
  }
  int64_t computed = 0;
  int64_t fresh = 0;
  for (size_t t = 0; t < result.turns.size(); ++t) {
    result.turns[t].ttft_seconds = Median(ttfts[t]);
    if (t == 0) continue;
    computed += result.turns[t].computed_tokens;
    fresh += result.turns[t].new_tokens;
  }
  result.computed_per_new =
      fresh == 0 ? 0
                 : static_cast<double>(computed) / static_cast<double>(fresh);
  result.second_turn_share = Median(shares);
  return result;
}

absl::StatusOr<PrefixResult> MeasurePrefix(ServingModel* model, bool boundary,
                                           const PrefixOptions& options) {
  const int64_t longest = options.prefix_tokens + options.suffix_tokens + 1;
  SY_RETURN_IF_ERROR(CheckLength("the longest prompt", longest, *model));
  ServingModel::EngineSettings settings;
  settings.chunked_prefill_size = options.prefill_chunk;
  settings.state_memory_bytes =
      model->StateBytes(0, 1, longest, 4) +
      model->StateBytes(0, 0, 2 * options.suffix_tokens, 4 * options.suffixes);
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<ServingEngine> engine,
                      model->NewEngine(settings));
  SY_RETURN_IF_ERROR(WarmUp(engine.get(), model->vocab_size()));
  const std::vector<int32_t> prefix =
      RandomPrompt(options.prefix_tokens, model->vocab_size(), 1);
  PrefixResult result;
  result.options = options;
  result.boundary = boundary;
  result.least_tokens =
      options.prefix_tokens + options.suffixes * options.suffix_tokens;
  std::vector<double> warm;
  for (int64_t i = 0; i < options.suffixes; ++i) {
    std::vector<int32_t> prompt = prefix;
    const std::vector<int32_t> suffix =
        RandomPrompt(options.suffix_tokens, model->vocab_size(),
                     static_cast<uint64_t>(2 + i));
    prompt.insert(prompt.end(), suffix.begin(), suffix.end());
    std::vector<int64_t> boundaries;
    if (boundary) boundaries.push_back(options.prefix_tokens);
    SY_ASSIGN_OR_RETURN(
        const Answer answer,
        Ask(engine.get(), std::move(prompt), std::move(boundaries), 1));
    result.computed_tokens += answer.computed_tokens;
    result.cached_tokens += answer.result.usage.cached_prompt_tokens;
    const double ttft = absl::ToDoubleSeconds(answer.result.TimeToFirstToken());
    if (i == 0) result.cold_ttft_seconds = ttft;
    if (i >= 2) warm.push_back(ttft);
  }
  result.warm_ttft_seconds = Median(warm);
  return result;
}

}  // namespace switchyard::bench
