#include "attention_worker/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "attention_worker/sampling/top_candidates.h"
#include "base/compute_pool.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::attention_worker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

int32_t Sample(const std::vector<float>& logits, const SamplingParams& params,
               int64_t position = 0, const TokenHistory& history = {}) {
  return SampleToken(logits, params, history, position, false, 0).id;
}

// The definition, slowly: sort everything, cut, walk. `kept` (if given) gets
// the ids that may be drawn.
int32_t Reference(const std::vector<float>& logits,
                  const SamplingParams& params, int64_t position,
                  std::vector<int32_t>* kept = nullptr) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < ids.size()) {
    ids.resize(params.top_k);
  }
  std::vector<long double> weights;
  for (const int32_t id : ids) {
    weights.push_back(
        std::exp((static_cast<long double>(logits[id]) - logits[ids[0]]) /
                 params.temperature));
  }
  const long double total =
      std::accumulate(weights.begin(), weights.end(), 0.0L);
  size_t n = 1;
  long double before = weights[0];
  while (n < ids.size() &&
         (params.top_p >= 1 || before < params.top_p * total)) {
    before += weights[n++];
  }
  size_t m = 1;
  while (m < n && weights[m] >= params.min_p) ++m;
  ids.resize(m);
  weights.resize(m);
  if (kept != nullptr) *kept = ids;
  const long double target =
      PhiloxUniform(params.seed, position) *
      std::accumulate(weights.begin(), weights.end(), 0.0L);
  long double sum = 0;
  for (size_t i = 0; i < m; ++i) {
    sum += weights[i];
    if (sum > target) return ids[i];
  }
  return ids.back();
}

std::vector<float> RandomRow(size_t size, float spread, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(size);
  for (float& logit : row) logit = normal(random);
  return row;
}

TEST(TopCandidatesTest, EqualsASortAtEverySize) {
  for (const size_t size : {1, 2, 3, 10, 257, 1000}) {
    std::vector<float> row = RandomRow(size, 1, size);
    // Many ties, and a NaN.
    for (float& logit : row) logit = std::round(logit * 4) / 4;
    if (size > 3) row[size / 2] = kNan;
    std::vector<Candidate> all;
    for (size_t i = 0; i < size; ++i) {
      all.push_back(
          {std::isnan(row[i]) ? -kInf : row[i], static_cast<int32_t>(i)});
    }
    std::sort(all.begin(), all.end(), Better);
    for (size_t n = 0; n <= size + 1; n = n < 5 ? n + 1 : n * 2) {
      const std::vector<Candidate> top =
          TopCandidates(row, static_cast<int64_t>(n));
      ASSERT_EQ(top.size(), std::min(n, size));
      for (size_t i = 0; i < top.size(); ++i) {
        ASSERT_EQ(top[i].id, all[i].id) << size << " " << n << " " << i;
        ASSERT_EQ(top[i].logit, all[i].logit);
      }
    }
  }
}

TEST(TopCandidatesTest, AscendingAndDescendingRows) {
  std::vector<float> row(5000);
  std::iota(row.begin(), row.end(), 0.0f);
  EXPECT_EQ(TopCandidates(row, 3)[2].id, 4997);
  std::reverse(row.begin(), row.end());
  EXPECT_EQ(TopCandidates(row, 3)[2].id, 2);
}

TEST(SamplerTest, GreedyTakesTheLowestIdOfATie) {
  SamplingParams params{.temperature = 0};
  EXPECT_EQ(Sample({1, 3, 3, 2}, params), 1);
  params.temperature = 9.9e-7;
  EXPECT_EQ(Sample({1, 3, 3, 2}, params), 1);
}

TEST(SamplerTest, GreedyPassesOverNanAndTakesInfinity) {
  const SamplingParams params{.temperature = 0};
  EXPECT_EQ(Sample({kNan, 1, kNan}, params), 1);
  EXPECT_EQ(Sample({1, kInf, kInf}, params), 1);
  EXPECT_EQ(Sample({-kInf, -1, 0 - kInf}, params), 1);
  EXPECT_EQ(Sample({kNan, kNan}, params), 0);
  EXPECT_EQ(Sample({-kInf, -kInf}, params), 0);
}

TEST(SamplerTest, IsAPureFunctionOfSeedAndPosition) {
  const std::vector<float> row = RandomRow(1000, 1, 1);
  const SamplingParams params{.seed = 99};
  std::set<int32_t> ids;
  for (int64_t position = 0; position < 50; ++position) {
    const int32_t id = Sample(row, params, position);
    EXPECT_EQ(Sample(row, params, position), id);
    ids.insert(id);
  }
  EXPECT_GT(ids.size(), 30);  // and not the same everywhere
}

// Every parameter against the slow definition, on rows with ties.
TEST(SamplerTest, EqualsTheDefinition) {
  const double top_ps[] = {1.0, 0.999, 0.8, 0.3, 1e-9};
  const int top_ks[] = {0, -1, 1, 2, 20, 100000};
  const double min_ps[] = {0.0, 0.05, 1.0};
  const double temperatures[] = {1e-6, 0.1, 0.7, 1.0, 5.0};
  uint64_t seed = 0;
  for (const size_t size : {1, 7, 300, 2000}) {
    std::vector<float> row = RandomRow(size, 3, size);
    for (size_t i = 0; i + 1 < size; i += 5) row[i] = row[i + 1];
    for (const double top_p : top_ps) {
      for (const int top_k : top_ks) {
        for (const double min_p : min_ps) {
          for (const double temperature : temperatures) {
            const SamplingParams params{.temperature = temperature,
                                        .top_p = top_p,
                                        .top_k = top_k,
                                        .min_p = min_p,
                                        .seed = ++seed};
            for (int64_t position = 0; position < 4; ++position) {
              ASSERT_EQ(Sample(row, params, position),
                        Reference(row, params, position))
                  << size << " top_p " << top_p << " top_k " << top_k
                  << " min_p " << min_p << " t " << temperature;
            }
          }
        }
      }
    }
  }
}

TEST(SamplerTest, EqualsTheDefinitionAtTheRealVocabularySize) {
  const std::vector<float> row = RandomRow(151936, 4, 5);
  for (const SamplingParams& base :
       {SamplingParams{.temperature = 0.7, .top_p = 0.8, .top_k = 20},
        SamplingParams{.temperature = 1.0},
        SamplingParams{.temperature = 2.5, .top_p = 0.95}}) {
    SamplingParams params = base;
    for (uint64_t seed = 0; seed < 5; ++seed) {
      params.seed = seed;
      EXPECT_EQ(Sample(row, params, 100), Reference(row, params, 100));
    }
  }
}

// Distributions so flat that thousands of candidates are left.
TEST(SamplerTest, EqualsTheDefinitionWhereManyAreLeft) {
  for (const float spread : {0.0f, 0.05f, 0.5f, 1.5f}) {
    std::vector<float> row = RandomRow(40000, spread, 9);
    for (size_t i = 0; i + 1 < row.size(); i += 7) row[i] = row[i + 1];
    row[3] = row[17] = -kInf;
    for (const SamplingParams& base :
         {SamplingParams{}, SamplingParams{.temperature = 3},
          SamplingParams{.top_p = 0.95}, SamplingParams{.top_k = 5000},
          SamplingParams{.top_p = 0.6, .top_k = 9000},
          SamplingParams{.top_p = 0.9, .min_p = 0.3},
          SamplingParams{.min_p = 0.02},
          SamplingParams{.temperature = 0.2, .top_p = 0.999, .top_k = 39999}}) {
      SamplingParams params = base;
      for (uint64_t seed = 0; seed < 12; ++seed) {
        params.seed = seed;
        ASSERT_EQ(Sample(row, params, 5), Reference(row, params, 5))
            << spread << " " << seed << " top_p " << params.top_p << " top_k "
            << params.top_k << " min_p " << params.min_p;
      }
    }
  }
}

// Pearson's test of `draws` tokens against the probabilities. The seeds are
// fixed, so it passes always or never; the limit is the 1 - 1e-6 quantile of
// chi-square with 7 degrees of freedom.
TEST(SamplerTest, DrawsFollowTheProbabilities) {
  const std::vector<float> row = {0, 1, 2, -1, 0.5, 1.5, -2, 2.5};
  constexpr double kTemperature = 0.8;
  constexpr int kDraws = 40000;
  double total = 0;
  for (const float logit : row) total += std::exp(logit / kTemperature);
  std::vector<int> counts(row.size());
  for (int i = 0; i < kDraws; ++i) {
    // Seeds and positions both vary.
    ++counts[Sample(
        row,
        {.temperature = kTemperature, .seed = static_cast<uint64_t>(i % 200)},
        i / 200)];
  }
  double chi_square = 0;
  for (size_t i = 0; i < row.size(); ++i) {
    const double expected = kDraws * std::exp(row[i] / kTemperature) / total;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_square, 40.5);
}

TEST(SamplerTest, TopPKeepsAtLeastOneAndStopsWhereItIsReached) {
  // Probabilities 0.4, 0.3, 0.2, 0.1.
  const std::vector<float> row = {std::log(4.0f), std::log(3.0f),
                                  std::log(2.0f), 0.0f};
  const auto drawn = [&](double top_p) {
    std::set<int32_t> ids;
    for (uint64_t seed = 0; seed < 300; ++seed) {
      ids.insert(Sample(row, {.top_p = top_p, .seed = seed}));
    }
    return ids;
  };
  EXPECT_THAT(drawn(0.01), ElementsAre(0));
  EXPECT_THAT(drawn(0.39), ElementsAre(0));
  EXPECT_THAT(drawn(0.41), ElementsAre(0, 1));
  EXPECT_THAT(drawn(0.69), ElementsAre(0, 1));
  EXPECT_THAT(drawn(0.71), ElementsAre(0, 1, 2));
  EXPECT_THAT(drawn(1.0), ElementsAre(0, 1, 2, 3));
}

// Sums of quarters are exact, so this is the very boundary: what reaches top_p
// is enough.
TEST(SamplerTest, TopPThatIsReachedExactlyKeepsNoMore) {
  std::set<int32_t> ids;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    ids.insert(Sample({0, 0, 0, 0}, {.top_p = 0.5, .seed = seed}));
  }
  EXPECT_THAT(ids, ElementsAre(0, 1));
}

TEST(SamplerTest, TopKTakesTheLowestIdsOfATie) {
  std::set<int32_t> ids;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    ids.insert(Sample({1, 1, 1, 1}, {.top_k = 2, .seed = seed}));
  }
  EXPECT_THAT(ids, ElementsAre(0, 1));
}

TEST(SamplerTest, MinPCutsByTheRatioToTheBest) {
  const std::vector<float> row = {0, std::log(0.5f), std::log(0.2f)};
  std::set<int32_t> ids;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    ids.insert(Sample(row, {.min_p = 0.3, .seed = seed}));
  }
  EXPECT_THAT(ids, ElementsAre(0, 1));
  EXPECT_EQ(Sample(row, {.min_p = 1.0, .seed = 3}), 0);
}

TEST(SamplerTest, SampledInfinityAndNan) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    EXPECT_EQ(Sample({kNan, 1, -kInf}, {.seed = seed}), 1);
    EXPECT_EQ(Sample({5, kInf, kNan}, {.seed = seed}), 1);
    EXPECT_EQ(Sample({5, kInf, kNan}, {.top_p = 0.5, .seed = seed}), 1);
    EXPECT_EQ(Sample({5, kInf, kNan}, {.top_k = 3, .seed = seed}), 1);
  }
  std::set<int32_t> all_nan;
  std::set<int32_t> two_infinite;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    all_nan.insert(Sample({kNan, -kInf, kNan}, {.seed = seed}));
    two_infinite.insert(Sample({kInf, 0, kInf}, {.seed = seed}));
  }
  EXPECT_THAT(all_nan, ElementsAre(0, 1, 2));
  EXPECT_THAT(two_infinite, ElementsAre(0, 2));
}

TEST(SamplerTest, ExtremeTemperaturesAndLogits) {
  const std::vector<float> row = {1.7e38f, -1.7e38f, 1.6e38f};
  EXPECT_EQ(Sample(row, {.temperature = 1e-6, .seed = 1}), 0);
  std::set<int32_t> ids;
  for (uint64_t seed = 0; seed < 100; ++seed) {
    ids.insert(Sample(row, {.temperature = 1e300, .seed = seed}));
  }
  EXPECT_THAT(ids, ElementsAre(0, 1, 2));  // flat
}

TEST(SamplerTest, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogits) {
  TokenHistory history;
  history.prompt = {{0, 5}};
  history.generated = {{0, 2}, {1, 1}};
  const SamplingParams params{.temperature = 0, .repetition_penalty = 2.0};
  // 3 -> 1.5 (once, though in both), -1 -> -2.
  EXPECT_EQ(Sample({3, -1, 1.4}, params, 0, history), 0);
  EXPECT_EQ(Sample({3, -1, 1.6}, params, 0, history), 2);
  EXPECT_EQ(Sample({-8, -1, -1.9}, params, 0, history), 2);
  EXPECT_EQ(Sample({-8, -1, -2.1}, params, 0, history), 1);
}

TEST(SamplerTest, PresenceAndFrequencyCountGeneratedTokensOnly) {
  TokenHistory history;
  history.prompt = {{1, 100}};
  history.generated = {{0, 3}};
  // Token 0 loses 3 * 0.5 + 0.25 = 1.75; the prompt's token 1 loses nothing.
  const SamplingParams params{
      .temperature = 0, .presence_penalty = 0.25, .frequency_penalty = 0.5};
  EXPECT_EQ(Sample({2, 0.2}, params, 0, history), 0);
  EXPECT_EQ(Sample({2, 0.3}, params, 0, history), 1);
  // Negative penalties encourage.
  EXPECT_EQ(
      Sample({0, 1}, {.temperature = 0, .presence_penalty = -2}, 0, history),
      0);
}

TEST(SamplerTest, LogprobsAreOfTheRawLogits) {
  TokenHistory history;
  history.generated = {{2, 1}};
  // Penalties, temperature and cuts change the choice, not the logprobs.
  const SamplingParams params{
      .temperature = 0.3, .top_k = 1, .frequency_penalty = 2};
  const std::vector<float> row = {0, 1, 2, 2};
  const SampledToken token = SampleToken(row, params, history, 4, true, 3);
  EXPECT_EQ(token.id, 3);
  const double log_sum = std::log(1 + std::exp(1.0) + 2 * std::exp(2.0));
  EXPECT_FLOAT_EQ(token.logprob, static_cast<float>(2 - log_sum));
  EXPECT_THAT(
      token.top_logprobs,
      ElementsAre(
          Pair(2, token.logprob), Pair(3, token.logprob),
          Pair(1, ::testing::FloatEq(static_cast<float>(1 - log_sum)))));
}

TEST(SamplerTest, LogprobsOnlyIfWanted) {
  const SampledToken token = SampleToken({{1, 2}}, {}, {}, 0, false, 2);
  EXPECT_EQ(token.logprob, 0);
  EXPECT_THAT(token.top_logprobs, IsEmpty());
}

TEST(SamplerTest, MoreTopLogprobsThanTokens) {
  const SampledToken token = SampleToken({{1, 2}}, {}, {}, 0, true, 20);
  EXPECT_EQ(token.top_logprobs.size(), 2);
}

TEST(SamplerTest, LogprobsOfInfiniteRows) {
  SampledToken token =
      SampleToken({{1, kInf, kInf}}, {.temperature = 0}, {}, 0, true, 3);
  EXPECT_FLOAT_EQ(token.logprob, std::log(0.5f));
  EXPECT_EQ(token.top_logprobs[2].second, -kInf);
  token = SampleToken({{kNan, -kInf}}, {.temperature = 0}, {}, 0, true, 1);
  EXPECT_FLOAT_EQ(token.logprob, std::log(0.5f));
  token = SampleToken({{kNan, 0, -kInf}}, {.temperature = 0}, {}, 0, true, 3);
  EXPECT_EQ(token.logprob, 0);
  EXPECT_EQ(token.top_logprobs[1].second, -kInf);
}

// However rows are shared out over threads: with and without what changes a row
// first, with rows of several lengths and with entries that are no number.
TEST(SampleTokensTest, EqualsOneByOne) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> rows;
  for (const int size : {1, 127, 128, 129, 5000, 151936, 40000, 3}) {
    std::vector<float>& row = rows.emplace_back();
    for (int i = 0; i < size; ++i) row.push_back(3 * normal(random));
  }
  rows[4][17] = kNan;
  rows[6][39999] = kInf;
  const std::vector<SamplingParams> params = {
      {.temperature = 0},
      {.temperature = 0.7, .top_p = 0.8, .top_k = 20, .seed = 5},
      {.temperature = 1, .seed = 9},
      {.temperature = 0.9, .top_k = 40, .presence_penalty = 1.5, .seed = 3}};
  TokenHistory history;
  history.generated[0] = 2;
  std::vector<SampleJob> jobs;
  for (size_t i = 0; i < 4 * rows.size(); ++i) {
    jobs.push_back({.logits = rows[i % rows.size()],
                    .params = &params[i / rows.size()],
                    .history = &history,
                    .position = static_cast<int64_t>(i),
                    .want_logprob = i % 2 == 0,
                    .num_top = 3});
  }
  for (const int threads : {1, 3}) {
    const auto pool = NewThreadPool(threads, "sample");
    std::vector<std::vector<SampledToken>> chosen(jobs.size());
    SampleTokens(jobs, pool.get(), absl::MakeSpan(chosen));
    std::vector<SampledToken> tokens;
    for (const std::vector<SampledToken>& of_job : chosen) {
      ASSERT_EQ(of_job.size(), 1u);
      tokens.push_back(of_job[0]);
    }
    for (size_t i = 0; i < jobs.size(); ++i) {
      const SampleJob& job = jobs[i];
      const SampledToken alone =
          SampleToken(job.logits, *job.params, history, job.position,
                      job.want_logprob, job.num_top);
      EXPECT_EQ(tokens[i].id, alone.id) << i;
      EXPECT_EQ(tokens[i].logprob, alone.logprob) << i;
      EXPECT_EQ(tokens[i].top_logprobs, alone.top_logprobs) << i;
    }
  }
}

// Verified rows give what choosing one after the other gives, penalties on what
// was chosen before included, and nothing behind a draft that was wrong.
TEST(SampleTokensTest, DraftsAreTakenAsFarAsTheyAreRight) {
  constexpr int64_t kVocab = 300;
  constexpr int64_t kRows = 5;
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> logits(kRows * kVocab);
  for (float& logit : logits) logit = normal(random);
  const absl::Span<const float> rows = logits;
  for (const double temperature : {0.0, 1.0}) {
    const SamplingParams params = {.temperature = temperature,
                                   .presence_penalty = 2,
                                   .repetition_penalty = 1.5,
                                   .seed = 3};
    TokenHistory grown;
    grown.prompt[7] = 1;
    const TokenHistory before = grown;
    std::vector<int32_t> expected;
    for (int64_t row = 0; row < kRows; ++row) {
      expected.push_back(SampleToken(rows.subspan(row * kVocab, kVocab), params,
                                     grown, 40 + row, false, 0)
                             .id);
      ++grown.generated[expected.back()];
    }
    const auto pool = NewThreadPool(2, "sample");
    for (size_t right = 0; right < kRows; ++right) {
      std::vector<int32_t> drafts(expected.begin(), expected.end() - 1);
      if (right < drafts.size()) drafts[right] = (drafts[right] + 1) % kVocab;
      TokenHistory history = before;
      const SampleJob job{.logits = logits,
                          .drafts = drafts,
                          .params = &params,
                          .history = &history,
                          .position = 40};
      std::vector<SampledToken> tokens;
      SampleTokens({&job, 1}, pool.get(), absl::MakeSpan(&tokens, 1));
      ASSERT_EQ(tokens.size(), right + 1);
      for (size_t i = 0; i <= right; ++i) {
        EXPECT_EQ(tokens[i].id, expected[i]) << i;
      }
      EXPECT_EQ(history.generated, before.generated);
    }
  }
}

TEST(ScoreTokenTest, RanksAreThePlacesInTheListOfAll) {
  const std::vector<float> logits = {2, 5, kNan, -kInf, 5, 2, kInf, -3, -kInf};
  const int size = static_cast<int>(logits.size());
  for (int32_t id = 0; id < size; ++id) {
    const SampledToken token = ScoreToken(logits, id, size);
    ASSERT_EQ(token.top_logprobs.size(), logits.size());
    EXPECT_EQ(token.top_logprobs[static_cast<size_t>(token.rank - 1)].first,
              id);
    // However many others are asked for.
    EXPECT_EQ(ScoreToken(logits, id, 0).rank, token.rank);
  }
  EXPECT_EQ(ScoreToken(logits, 4, 0).rank, 3);
}

}  // namespace
}  // namespace switchyard::attention_worker
