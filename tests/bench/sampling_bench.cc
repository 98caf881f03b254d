// switchyard-bench-sampling: what choosing a token from a row of logits costs.
//
//   switchyard-bench-sampling [--vocab_size 151936] [--rounds 200] [--threads
//   2]
//
// Each row of the table is a request's parameters on rows of normally
// distributed logits, steep (a model that is sure) to flat (random weights).
// Printed are medians in microseconds: a row by itself on one thread, plain and
// with the penalties, the logprob and 20 top logprobs; then that on all
// threads; then one of sixteen rows that are sampled together on all threads.
// Beside them what reading such a row once takes, in the same run.
//
// --smoke: short rows, once, to show that it works.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attention_worker/sampling/sampler.h"
#include "attention_worker/sampling/top_candidates.h"
#include "base/check.h"
#include "base/command_line.h"
#include "base/compute_pool.h"

ABSL_FLAG(int64_t, vocab_size, 151936, "entries of a row of logits");
ABSL_FLAG(int, rounds, 200, "rows of each case");
ABSL_FLAG(int, threads, 2, "of the columns that say so");
ABSL_FLAG(bool, smoke, false, "show that it works, measure nothing");

namespace switchyard::attention_worker {
namespace {

// More than the caches of a core hold together at the full vocabulary.
constexpr int kRows = 16;
constexpr int kTokensOfHistory = 500;

struct Case {
  const char* name;
  float spread;  // the logits' standard deviation
  SamplingParams params;
};

std::vector<Case> Cases() {
  std::vector<Case> cases = {
      {"greedy", 2, {.temperature = 0}},
      {"top-k 20, top-p 0.8",
       2,
       {.temperature = 0.7, .top_p = 0.8, .top_k = 20}},
  };
  for (const float spread : {8.0f, 2.0f, 0.5f}) {
    cases.push_back({"top-p 0.95", spread, {.top_p = 0.95}});
    cases.push_back({"min-p 0.05", spread, {.min_p = 0.05}});
    cases.push_back({"no cut", spread, {}});
  }
  cases.push_back(
      {"top-k 5000, top-p 0.9", 0.5f, {.top_p = 0.9, .top_k = 5000}});
  return cases;
}

double Micros(absl::Time begin) {
  return absl::ToDoubleMicroseconds(absl::Now() - begin);
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2,
                   values.end());
  return values[values.size() / 2];
}

class Bench {
 public:
  Bench(int64_t vocab_size, int rounds, ComputePool* pool)
      : vocab_(vocab_size), rounds_(rounds), pool_(pool) {
    std::mt19937 random(1);
    for (int i = 0; i < kTokensOfHistory; ++i) {
      ++history_.prompt[static_cast<int32_t>(random() % vocab_)];
      ++history_.generated[static_cast<int32_t>(random() % vocab_)];
    }
    history_.prompt_tokens = kTokensOfHistory;
  }

  void Run(const Case& c) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal(0, c.spread);
    rows_.resize(static_cast<size_t>(kRows * vocab_));
    for (float& logit : rows_) logit = normal(random);
    SamplingParams penalties = c.params;
    penalties.repetition_penalty = 1.1;
    penalties.frequency_penalty = 0.2;
    penalties.presence_penalty = 0.1;
    InlinePool alone;
    std::printf("%-22s %5.1f %9.0f %9.0f %9.0f %9.0f\n", c.name, c.spread,
                Alone(c.params, false, &alone), Alone(penalties, true, &alone),
                Alone(penalties, true, pool_), Together(penalties));
  }

  double ReadOnce() {
    std::vector<double> micros;
    float greatest = 0;
    for (int i = 0; i < rounds_; ++i) {
      const absl::Time begin = absl::Now();
      greatest = std::max(greatest, GreatestLogit(Row(i)));
      micros.push_back(Micros(begin));
    }
    SY_CHECK(greatest > 0);
    return Median(std::move(micros));
  }

 private:
  absl::Span<const float> Row(int i) const {
    return absl::MakeConstSpan(rows_).subspan(i % kRows * vocab_, vocab_);
  }

  SampleJob Job(int i, const SamplingParams& params, bool logprobs) {
    SampleJob job;
    job.logits = Row(i);
    job.params = &params;
    job.history = &history_;
    job.position = kTokensOfHistory + i;
    job.want_logprob = logprobs;
    job.num_top = logprobs ? 20 : 0;
    return job;
  }

  double Alone(const SamplingParams& params, bool logprobs, ComputePool* pool) {
    std::vector<double> micros;
    std::vector<std::vector<SampledToken>> tokens(1);
    for (int i = 0; i < rounds_; ++i) {
      const SampleJob job = Job(i, params, logprobs);
      const absl::Time begin = absl::Now();
      const ComputePool::Active active(pool);
      SampleTokens(absl::MakeConstSpan(&job, 1), pool, absl::MakeSpan(tokens));
      micros.push_back(Micros(begin));
    }
    return Median(std::move(micros));
  }

  double Together(const SamplingParams& params) {
    std::vector<double> micros;
    for (int i = 0; i < rounds_; i += kRows) {
      std::vector<SampleJob> jobs;
      for (int row = 0; row < kRows; ++row) {
        jobs.push_back(Job(i + row, params, /*logprobs=*/true));
      }
      std::vector<std::vector<SampledToken>> tokens(kRows);
      const absl::Time begin = absl::Now();
      const ComputePool::Active active(pool_);
      SampleTokens(jobs, pool_, absl::MakeSpan(tokens));
      micros.push_back(Micros(begin) / kRows);
    }
    return Median(std::move(micros));
  }

  const int64_t vocab_;
  const int rounds_;
  ComputePool* const pool_;
  TokenHistory history_;
  std::vector<float> rows_;
};

int Run() {
  const bool smoke = absl::GetFlag(FLAGS_smoke);
  const int threads = absl::GetFlag(FLAGS_threads);
  const auto pool = NewThreadPool(threads, "sampling");
  Bench bench(smoke ? 3000 : absl::GetFlag(FLAGS_vocab_size),
              smoke ? 2 : absl::GetFlag(FLAGS_rounds), pool.get());
  std::printf(
      "microseconds a row, medians; +: with penalties and 20 logprobs\n");
  std::printf("%-22s %5s %9s %9s %7s x%d %6s x%d\n", "", "sigma", "alone",
              "alone +", "alone +", threads, "of 16 +", threads);
  for (const Case& c : Cases()) bench.Run(c);
  std::printf("reading a row once: %.0f\n", bench.ReadOnce());
  return 0;
}

}  // namespace
}  // namespace switchyard::attention_worker

int main(int argc, char** argv) {
  const auto arguments = switchyard::ParseCommandLine(
      argc, argv, "switchyard-bench-sampling: what choosing a token costs");
  if (!arguments.ok()) {
    std::fprintf(stderr, "%s\n", arguments.status().ToString().c_str());
    return 2;
  }
  return switchyard::attention_worker::Run();
}
