#include "switchyard/bench/measure.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <utility>

#include "absl/types/span.h"
#include "attention_worker/sampling/sampler.h"
#include "attention_worker/state/sequence_state.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/kv_rows.h"
#include "switchyard/bench/limits/limits.h"

namespace switchyard::bench {
namespace {

using attention_worker::ChunkResult;
using attention_worker::LogitsOf;
using attention_worker::SamplingParams;
using attention_worker::SequenceChunk;
using attention_worker::SequenceState;
using attention_worker::StateMemory;
using attention_worker::StateShape;
using attention_worker::StepPart;
using attention_worker::TimedPart;
using attention_worker::TokenHistory;

constexpr int64_t kWarmUpSteps = 2;

// What Qwen3-Next's generation_config.json recommends.
SamplingParams Sampling(uint64_t seed) {
  return {.temperature = 0.7, .top_p = 0.8, .top_k = 20, .seed = seed};
}

// Normally distributed floats, many at a time: pieces of one small table, each
// from a random place on.
class RandomFloats {
 public:
  explicit RandomFloats(uint64_t seed) : random_(seed) {
    std::normal_distribution<float> normal;
    for (float& value : table_) value = normal(random_);
  }

  void Fill(float* data, int64_t n, float deviation) {
    for (int64_t done = 0; done < n;) {
      const auto begin = static_cast<int64_t>(random_() % kPieces) * kPiece;
      const int64_t piece = std::min(n - done, kPiece);
      for (int64_t i = 0; i < piece; ++i) {
        data[done + i] = table_[begin + i] * deviation;
      }
      done += piece;
    }
  }

  int32_t Token(int64_t vocab_size) {
    return static_cast<int32_t>(random_() % static_cast<uint64_t>(vocab_size));
  }

 private:
  static constexpr int64_t kPiece = 1024;
  static constexpr int64_t kPieces = 64;
  std::mt19937_64 random_;
  std::vector<float> table_ = std::vector<float>(kPiece * kPieces);
};

// As if the sequence had read `tokens` tokens: normalised keys have an entry of
// about one; the rest is of the size that a few layers of random weights give.
void FillState(const StateShape& shape, int64_t tokens, RandomFloats* random,
               SequenceState* state) {
  if (tokens == 0) return;
  std::vector<float> row(static_cast<size_t>(shape.kv.head_dim));
  const auto fill = [&](float deviation, uint8_t* cached) {
    random->Fill(row.data(), shape.kv.head_dim, deviation);
    kernels::EncodeKvRow(shape.kv.dtype, row.data(), shape.kv.head_dim, cached);
  };
  for (int i = 0; i < shape.num_full_layers; ++i) {
    const attention_worker::KvLayer kv = {state->pages(), shape.kv, i};
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t h = 0; h < shape.kv.num_kv_heads; ++h) {
        fill(1.0f, kv.KeyAt(t, h));
        fill(0.5f, kv.ValueAt(t, h));
      }
    }
  }
  for (int i = 0; i < shape.num_linear_layers; ++i) {
    random->Fill(state->recurrent(i), shape.recurrent_floats, 0.05f);
    random->Fill(state->conv_tail(i), shape.conv_floats, 0.5f);
  }
  state->num_tokens = tokens;
}

struct Sequence {
  std::unique_ptr<SequenceState> state;
  int32_t next = 0;  // the token that it reads next
  SamplingParams sampling;
};

// Steps and samples, with the timer running.
class Stepper {
 public:
  explicit Stepper(BenchModel* model) : model_(*model) {}

  // Every sequence reads its next token and gets another.
  absl::Status Decode(std::vector<Sequence>* sequences) {
    std::vector<SequenceChunk> chunks;
    for (Sequence& sequence : *sequences) {
      chunks.push_back({.state = sequence.state.get(),
                        .tokens = absl::MakeConstSpan(&sequence.next, 1)});
    }
    const std::vector<ChunkResult> results = model_.runner().Step(chunks);
    for (const ChunkResult& result : results) {
      SY_RETURN_IF_ERROR(result.status);
    }
    Sample(results, absl::MakeSpan(*sequences));
    return absl::OkStatus();
  }

  absl::Status Read(absl::Span<const int32_t> tokens, bool last,
                    Sequence* sequence) {
    const SequenceChunk chunk{
        .state = sequence->state.get(),
        .tokens = tokens,
        .logits = last ? LogitsOf::kLastToken : LogitsOf::kNothing};
    const ChunkResult result =
        std::move(model_.runner().Step(absl::MakeConstSpan(&chunk, 1))[0]);
    SY_RETURN_IF_ERROR(result.status);
    if (last) Sample({&result, 1}, {sequence, 1});
    return absl::OkStatus();
  }

 private:
  void Sample(absl::Span<const ChunkResult> results,
              absl::Span<Sequence> sequences) {
    const TimedPart timed(&model_.timer(), StepPart::kSampling);
    std::vector<attention_worker::SampleJob> jobs;
    for (size_t i = 0; i < results.size(); ++i) {
      jobs.push_back({.logits = results[i].logits,
                      .params = &sequences[i].sampling,
                      .history = &no_history_,
                      .position = sequences[i].state->num_tokens,
                      .want_logprob = false,
                      .num_top = 0});
    }
    std::vector<std::vector<attention_worker::SampledToken>> tokens(
        jobs.size());
    SampleTokens(jobs, &model_.pool(), absl::MakeSpan(tokens));
    for (size_t i = 0; i < tokens.size(); ++i)
      sequences[i].next = tokens[i][0].id;
  }

  BenchModel& model_;
  TokenHistory no_history_;
};

// Runs `body` with the model's timer on.
template <typename Body>
absl::StatusOr<Repetition> Time(BenchModel* model, Body body) {
  attention_worker::StepTimer& timer = model->timer();
  timer.Start();
  SY_RETURN_IF_ERROR(body());
  timer.Stop();
  Repetition repetition;
  for (int part = 0; part < attention_worker::kNumStepParts; ++part) {
    repetition.parts[part] = timer.seconds(static_cast<StepPart>(part));
    repetition.seconds += repetition.parts[part];
  }
  return repetition;
}

MachineLimits Mean(const MachineLimits& a, const MachineLimits& b) {
  return {
      .read_bytes = (a.read_bytes + b.read_bytes) / 2,
      .integer_operations = (a.integer_operations + b.integer_operations) / 2,
      .float_operations = (a.float_operations + b.float_operations) / 2,
      .bf16_operations = (a.bf16_operations + b.bf16_operations) / 2};
}

// Repeats `body`, which returns one Repetition, and counts what experts it
// used.
template <typename Body>
absl::Status Repeat(BenchModel* model, const MeasureOptions& options,
                    Measurement* measurement, Body body) {
  const CountingDispatcher& dispatcher = model->dispatcher();
  const int64_t dispatches = dispatcher.dispatches();
  const int64_t experts = dispatcher.distinct_experts();
  const double give_up = Now() + options.max_seconds;
  MachineLimits before = options.measure_limits();
  int done = 0;
  do {
    SY_ASSIGN_OR_RETURN(Repetition repetition, body());
    const MachineLimits after = options.measure_limits();
    repetition.limits = Mean(before, after);
    before = after;
    measurement->repetitions.push_back(repetition);
    ++done;
  } while (done < options.repeat && Now() < give_up);
  const int64_t dispatched = dispatcher.dispatches() - dispatches;
  measurement->dispatches = dispatched / done;
  if (dispatched > 0) {
    measurement->distinct_experts =
        static_cast<double>(dispatcher.distinct_experts() - experts) /
        static_cast<double>(dispatched);
  }
  return absl::OkStatus();
}

void Add(const StepCost& cost, StepCost* sum) {
  for (size_t part = 0; part < cost.size(); ++part) (*sum)[part] += cost[part];
}

}  // namespace

const Repetition& Measurement::Median() const {
  SY_CHECK(!repetitions.empty());
  std::vector<const Repetition*> sorted;
  for (const Repetition& repetition : repetitions) {
    sorted.push_back(&repetition);
  }
  std::sort(sorted.begin(), sorted.end(),
            [](const Repetition* a, const Repetition* b) {
              return a->seconds < b->seconds;
            });
  return *sorted[sorted.size() / 2];
}

double Measurement::RooflineShare() const {
  std::vector<double> shares;
  for (const Repetition& repetition : repetitions) {
    shares.push_back(repetition.seconds > 0
                         ? RooflineSeconds(cost, repetition.limits) /
                               repetition.seconds
                         : 0);
  }
  SY_CHECK(!shares.empty());
  std::sort(shares.begin(), shares.end());
  return shares[(shares.size() - 1) / 2];
}

double Measurement::TokensPerSecond(const Repetition& repetition) const {
  return repetition.seconds > 0
             ? static_cast<double>(tokens) / repetition.seconds
             : 0;
}

double Measurement::MinTokensPerSecond() const {
  double least = TokensPerSecond(Median());
  for (const Repetition& repetition : repetitions) {
    least = std::min(least, TokensPerSecond(repetition));
  }
  return least;
}

double Measurement::MaxTokensPerSecond() const {
  double most = 0;
  for (const Repetition& repetition : repetitions) {
    most = std::max(most, TokensPerSecond(repetition));
  }
  return most;
}

absl::StatusOr<Measurement> MeasureDecode(BenchModel* model, int64_t batch,
                                          int64_t context,
                                          const MeasureOptions& options) {
  SY_ASSIGN_OR_RETURN(
      const Accounting accounting,
      Accounting::ForCheckpoint(model->checkpoint(),
                                model->runner().state_shape().kv.dtype));
  const StateShape& shape = model->runner().state_shape();
  const int64_t max_tokens =
      context + kWarmUpSteps + options.repeat * options.decode_steps;
  RandomFloats random(static_cast<uint64_t>(batch * 1'000'003 + context));
  SY_ASSIGN_OR_RETURN(
      const std::unique_ptr<StateMemory> memory,
      StateMemory::Create(shape, batch * shape.Costs().BytesFor(max_tokens)));
  std::vector<Sequence> sequences(static_cast<size_t>(batch));
  for (size_t i = 0; i < sequences.size(); ++i) {
    Sequence& sequence = sequences[i];
    sequence.state = SequenceState::TryCreate(memory.get(), max_tokens);
    SY_CHECK(sequence.state != nullptr && sequence.state->TryGrow(max_tokens));
    FillState(shape, context, &random, sequence.state.get());
    sequence.next = random.Token(model->checkpoint().config().vocab_size);
    sequence.sampling = Sampling(i + 1);
  }

  Measurement measurement;
  measurement.phase = Phase::kDecode;
  measurement.batch = batch;
  measurement.context = context;
  measurement.steps = options.decode_steps;
  measurement.tokens = batch * options.decode_steps;
  Stepper stepper(model);
  for (int64_t i = 0; i < kWarmUpSteps; ++i) {
    SY_RETURN_IF_ERROR(stepper.Decode(&sequences));
  }
  SY_RETURN_IF_ERROR(Repeat(model, options, &measurement, [&] {
    return Time(model, [&]() -> absl::Status {
      for (int64_t i = 0; i < options.decode_steps; ++i) {
        SY_RETURN_IF_ERROR(stepper.Decode(&sequences));
      }
      return absl::OkStatus();
    });
  }));
  const int64_t read = sequences[0].state->num_tokens;
  measurement.state_bytes = batch * shape.Costs().BytesFor(read);
  measurement.resident_bytes = ResidentBytesOf(getpid());
  StepLoad load;
  load.logits_rows = batch;
  load.distinct_experts = measurement.distinct_experts *
                          static_cast<double>(measurement.dispatches) /
                          static_cast<double>(options.decode_steps);
  // Contexts grow while repetitions go by: that of the middle.
  const int64_t grown = (read - context - kWarmUpSteps) / 2;
  load.sequences.assign(
      sequences.size(),
      {.context = context + kWarmUpSteps + grown, .tokens = 1});
  const StepCost step = accounting.CostOf(load);
  for (int64_t i = 0; i < options.decode_steps; ++i) {
    Add(step, &measurement.cost);
  }
  return measurement;
}

absl::StatusOr<Measurement> MeasurePrefill(BenchModel* model,
                                           int64_t prompt_tokens,
                                           const MeasureOptions& options) {
  SY_ASSIGN_OR_RETURN(
      const Accounting accounting,
      Accounting::ForCheckpoint(model->checkpoint(),
                                model->runner().state_shape().kv.dtype));
  RandomFloats random(static_cast<uint64_t>(prompt_tokens));
  std::vector<int32_t> prompt(static_cast<size_t>(prompt_tokens));
  for (int32_t& token : prompt) {
    token = random.Token(model->checkpoint().config().vocab_size);
  }
  const auto chunk = static_cast<size_t>(options.prefill_chunk);
  Measurement measurement;
  measurement.phase = Phase::kPrefill;
  measurement.tokens = prompt_tokens;
  measurement.steps =
      (prompt_tokens + options.prefill_chunk - 1) / options.prefill_chunk;
  const StateShape& shape = model->runner().state_shape();
  SY_ASSIGN_OR_RETURN(
      const std::unique_ptr<StateMemory> memory,
      StateMemory::Create(shape, shape.Costs().BytesFor(prompt_tokens)));
  Stepper stepper(model);
  const auto once = [&]() -> absl::StatusOr<Repetition> {
    Sequence sequence;
    sequence.sampling = Sampling(1);
    sequence.state = SequenceState::TryCreate(memory.get(), prompt_tokens);
    SY_CHECK(sequence.state != nullptr &&
             sequence.state->TryGrow(prompt_tokens));
    auto repetition = Time(model, [&]() -> absl::Status {
      for (absl::Span<const int32_t> rest = prompt; !rest.empty();) {
        const auto tokens = rest.first(std::min(chunk, rest.size()));
        rest.remove_prefix(tokens.size());
        SY_RETURN_IF_ERROR(stepper.Read(tokens, rest.empty(), &sequence));
      }
      return absl::OkStatus();
    });
    measurement.state_bytes = memory->budget_bytes();
    measurement.resident_bytes = ResidentBytesOf(getpid());
    return repetition;
  };
  SY_RETURN_IF_ERROR(once().status());
  SY_RETURN_IF_ERROR(Repeat(model, options, &measurement, once));

  // Chunks are taken to need equally many experts; all but the last do.
  const double experts = measurement.distinct_experts *
                         static_cast<double>(measurement.dispatches) /
                         static_cast<double>(measurement.steps);
  for (int64_t done = 0; done < prompt_tokens; done += options.prefill_chunk) {
    const int64_t n = std::min(options.prefill_chunk, prompt_tokens - done);
    StepLoad load;
    load.sequences = {{.context = done, .tokens = n}};
    load.logits_rows = done + n == prompt_tokens ? 1 : 0;
    load.distinct_experts = experts;
    Add(accounting.CostOf(load), &measurement.cost);
  }
  return measurement;
}

}  // namespace switchyard::bench
