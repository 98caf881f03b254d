#include "attention_worker/sampling/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "absl/types/optional.h"
#include "attention_worker/sampling/portable_math.h"
#include "attention_worker/sampling/ranked_row.h"
#include "attention_worker/sampling/top_candidates.h"
#include "attention_worker/sampling/weight.h"
#include "base/check.h"

namespace switchyard::attention_worker {
namespace {

// Below this a distribution is a point: greedy.
constexpr double kGreedyTemperature = 1e-6;

// Blocks whose maxima are worth a thread's while: 64 KiB of logits, some 10 us.
constexpr int64_t kMinBlocks = 128;

bool HasPenalties(const SamplingParams& params) {
  return params.repetition_penalty != 1.0 || params.presence_penalty != 0.0 ||
         params.frequency_penalty != 0.0;
}

// Transformers' repetition penalty, then OpenAI's presence and frequency ones.
void ApplyPenalties(const SamplingParams& params, const TokenHistory& history,
                    absl::Span<float> logits) {
  const auto repeat = [&](int32_t id) {
    SY_DCHECK(id >= 0 && static_cast<size_t>(id) < logits.size());
    const double logit = logits[id];
    logits[id] =
        static_cast<float>(logit < 0 ? logit * params.repetition_penalty
                                     : logit / params.repetition_penalty);
  };
  if (params.repetition_penalty != 1.0) {
    for (const auto& [id, count] : history.prompt) repeat(id);
    for (const auto& [id, count] : history.generated) {
      if (!history.prompt.contains(id)) repeat(id);
    }
  }
  if (params.frequency_penalty == 0.0 && params.presence_penalty == 0.0) return;
  for (const auto& [id, count] : history.generated) {
    logits[id] = static_cast<float>(
        static_cast<double>(logits[id]) -
        (params.frequency_penalty * count + params.presence_penalty));
  }
}

// The least logit that min-p leaves: that of min_p times the greatest weight.
float LeastLogit(float greatest, const SamplingParams& params) {
  // Below that nothing is cut off that is ever drawn.
  constexpr double kSmallest = 1e-300;
  if (!std::isfinite(greatest)) return greatest;
  if (params.min_p < kSmallest) return -std::numeric_limits<float>::infinity();
  const double exact = std::max<double>(
      greatest + params.temperature * PortableLog(params.min_p),
      std::numeric_limits<float>::lowest());
  const float rounded = static_cast<float>(exact);
  return rounded < exact
             ? std::nextafter(rounded, std::numeric_limits<float>::infinity())
             : rounded;
}

// Draws from the candidates that top-k, top-p and min-p leave: from the few
// best ones if they are enough, else from the whole row. Both ways have the
// same definition; their sums may round differently.
class Draw {
 public:
  Draw(const CandidateRow& row, const SamplingParams& params)
      : Draw(row, params, row.Greatest()) {}

  int32_t Token(double uniform) {
    if (const auto token = TokenOfBest(uniform)) return *token;
    RankedRow ranked(row_.logits, weight_);
    RankedRow::Prefix kept = ranked.All();
    if (limit_ < size_) kept = ranked.FirstCount(limit_, kept);
    if (params_.top_p < 1.0) {
      kept = ranked.FirstWeight(params_.top_p * kept.weight, kept);
    }
    if (params_.min_p > 0.0) kept = ranked.FromLogit(least_logit_, kept);
    return ranked.EntryBeyond(uniform * kept.weight, kept);
  }

 private:
  // Of so many a sorted list is faster than bins over all: if the request says
  // that no more are wanted, and if that has to be found out.
  static constexpr int64_t kMaxSorted = 1024;
  static constexpr int64_t kMaxTried = 128;

  Draw(const CandidateRow& row, const SamplingParams& params, float greatest)
      : row_(row),
        params_(params),
        size_(static_cast<int64_t>(row.logits.size())),
        limit_(params.top_k > 0 ? std::min<int64_t>(params.top_k, size_)
                                : size_),
        least_logit_(LeastLogit(greatest, params)),
        weight_(greatest, params.temperature) {}

  // Nothing: it takes more than the best few to tell.
  absl::optional<int32_t> TokenOfBest(double uniform) {
    if (limit_ < size_ && limit_ > kMaxSorted) return absl::nullopt;
    const absl::optional<double> kept = KeptWeight(uniform);
    if (!kept.has_value()) return absl::nullopt;
    const double target = uniform * *kept;
    double sum = 0;
    int32_t last = 0;
    for (int64_t i = 0; i < limit_; ++i) {
      if (!Reach(i)) return absl::nullopt;
      const double weight = weight_(best_[i].logit);
      if (weight == 0) break;  // so are all that follow
      last = best_[i].id;
      sum += weight;
      if (sum > target) return last;
    }
    // Rounding: two sums of the same weights in different orders.
    return last;
  }

  // Cuts limit_ down to what top-p and min-p leave, and returns its weight.
  // Nothing: it takes more than the best few to tell.
  absl::optional<double> KeptWeight(double uniform) {
    double total = 0;  // of what top-k leaves
    if (limit_ < size_) {
      for (int64_t i = 0; i < limit_; ++i) {
        Reach(i);
        total += weight_(best_[i].logit);
      }
    } else if (params_.min_p <= 0.0 || params_.top_p < 1.0) {
      total = weight_.Sum(row_.logits);
    }
    const bool cuts_weight = params_.top_p < 1.0;
    // None weighs more than the best one, which weighs 1: a flat row needs no
    // list to tell that a short one won't do.
    const double most = static_cast<double>(std::min(limit_, MaxListed()));
    if (!cuts_weight && params_.min_p <= 0.0) {
      if (uniform * total >= most) return absl::nullopt;
      return total;
    }
    const double enough = cuts_weight ? params_.top_p * total
                                      : std::numeric_limits<double>::infinity();
    if (cuts_weight && params_.min_p <= 0.0 && enough > most) {
      return absl::nullopt;
    }
    double kept = 0;
    for (int64_t i = 0; i < limit_; ++i) {
      if (!Reach(i)) return absl::nullopt;
      const double weight = weight_(best_[i].logit);
      if (weight == 0 ||
          (i > 0 && (kept >= enough ||
                     (params_.min_p > 0.0 && best_[i].logit < least_logit_)))) {
        limit_ = i;
        break;
      }
      kept += weight;
    }
    return kept;
  }

  int64_t MaxListed() const { return limit_ < size_ ? kMaxSorted : kMaxTried; }

  // Sees to it that best_ has an i-th; false: there are to be no more.
  bool Reach(int64_t i) {
    if (best_.empty()) {
      best_ = TopCandidates(row_, std::min(limit_, MaxListed()));
    }
    return i < static_cast<int64_t>(best_.size());
  }

  const CandidateRow row_;
  const SamplingParams& params_;
  const int64_t size_;
  int64_t limit_;  // candidates that may be drawn
  const float least_logit_;
  const Weight weight_;
  std::vector<Candidate> best_;
};

// Natural log of softmax(logits), for the chosen one and the best `num_top`.
void FillLogprobs(const CandidateRow& row, int num_top, SampledToken* token) {
  const absl::Span<const float> logits = row.logits;
  const float max = row.Greatest();
  const Weight weight(max, 1.0);
  const double log_sum = PortableLog(weight.Sum(logits));
  const auto logprob = [&](float logit) -> float {
    if (std::isfinite(logit) && std::isfinite(max)) {
      return static_cast<float>((static_cast<double>(logit) - max) - log_sum);
    }
    return weight(logit) > 0 ? static_cast<float>(-log_sum)
                             : -std::numeric_limits<float>::infinity();
  };
  token->logprob = logprob(logits[token->id]);
  for (const Candidate& candidate : TopCandidates(row, num_top)) {
    token->top_logprobs.emplace_back(candidate.id, logprob(candidate.logit));
  }
}

// 1 for the first of TopCandidates, and so on: NaN counts as -infinity.
int64_t RankOf(absl::Span<const float> logits, int32_t id) {
  const float* const row = logits.data();
  const auto size = static_cast<int32_t>(logits.size());
  const float own = row[id];
  int32_t before = 0;
  if (own > -std::numeric_limits<float>::infinity()) {
    for (int32_t i = 0; i < id; ++i) before += row[i] >= own ? 1 : 0;
    for (int32_t i = id + 1; i < size; ++i) before += row[i] > own ? 1 : 0;
    return int64_t{before} + 1;
  }
  for (int32_t i = id + 1; i < size; ++i) {
    before += row[i] > -std::numeric_limits<float>::infinity() ? 1 : 0;
  }
  return int64_t{before} + id + 1;
}

int32_t Greedy(const CandidateRow& row) { return TopCandidates(row, 1)[0].id; }

// The allowed entries of a row, in order: what is drawn from under a grammar.
struct AllowedEntries {
  AllowedEntries(absl::Span<const float> logits,
                 absl::Span<const uint64_t> allowed) {
    SY_CHECK(allowed.size() * 64 >= logits.size());
    for (size_t word = 0; word < allowed.size(); ++word) {
      for (uint64_t bits = allowed[word]; bits != 0; bits &= bits - 1) {
        const size_t id =
            word * 64 + static_cast<size_t>(std::countr_zero(bits));
        if (id >= logits.size()) break;
        values.push_back(logits[id]);
        ids.push_back(static_cast<int32_t>(id));
      }
    }
    SY_CHECK(!ids.empty());
  }

  std::vector<float> values;
  std::vector<int32_t> ids;
};

int32_t Choose(const CandidateRow& row, const SamplingParams& params,
               int64_t position) {
  if (params.temperature < kGreedyTemperature) return Greedy(row);
  return Draw(row, params)
      .Token(PhiloxUniform(params.seed, static_cast<uint64_t>(position)));
}

SampledToken Sample(const CandidateRow& raw, const SamplingParams& params,
                    const TokenHistory& history, int64_t position,
                    bool want_logprob, int num_top,
                    absl::Span<const uint64_t> allowed) {
  SY_CHECK(!raw.logits.empty());
  const int64_t index = position - history.prompt_tokens;
  SampledToken token;
  if (const auto forced = ForcedToken(params.rules, history.progress, index)) {
    token.id = *forced;
    if (want_logprob) FillLogprobs(raw, num_top, &token);
    return token;
  }
  CandidateRow row = raw;
  std::vector<float> changed;
  if (HasPenalties(params) || ChangesLogits(params.rules, index)) {
    changed.assign(raw.logits.begin(), raw.logits.end());
    ApplyPenalties(params, history, absl::MakeSpan(changed));
    ApplyRules(params.rules, index, absl::MakeSpan(changed));
    row = CandidateRow(changed);
  }
  if (allowed.empty()) {
    token.id = Choose(row, params, position);
  } else {
    const AllowedEntries entries(row.logits, allowed);
    token.id = entries.ids[static_cast<size_t>(
        Choose(CandidateRow(entries.values), params, position))];
  }
  if (want_logprob) FillLogprobs(raw, num_top, &token);
  return token;
}

}  // namespace

SampledToken SampleToken(absl::Span<const float> logits,
                         const SamplingParams& params,
                         const TokenHistory& history, int64_t position,
                         bool want_logprob, int num_top,
                         absl::Span<const uint64_t> allowed) {
  return Sample(CandidateRow(logits), params, history, position, want_logprob,
                num_top, allowed);
}

SampledToken ScoreToken(absl::Span<const float> logits, int32_t id,
                        int num_top) {
  SampledToken token;
  token.id = id;
  FillLogprobs(CandidateRow(logits), num_top, &token);
  token.rank = RankOf(logits, id);
  return token;
}

namespace {

// A job's rows, and how they are cut into blocks for finding their maxima.
struct JobRows {
  explicit JobRows(const SampleJob& sample_job)
      : job(sample_job), count(static_cast<int64_t>(job.drafts.size()) + 1) {
    const int64_t size = static_cast<int64_t>(job.logits.size());
    SY_CHECK(size % count == 0);
    vocab = size / count;
    blocks = CandidateRow::NumBlocks(vocab);
  }

  absl::Span<const float> Logits(int64_t row) const {
    return job.logits.subspan(row * vocab, vocab);
  }

  const SampleJob& job;
  const int64_t count;
  int64_t vocab = 0;
  int64_t blocks = 0;  // of one row
};

// `maxima`: of all blocks of the rows.
std::vector<SampledToken> SampleRows(const JobRows& rows,
                                     absl::Span<const float> maxima) {
  const SampleJob& job = rows.job;
  const bool penalties = HasPenalties(*job.params);
  const RuleProgress progress = job.history->progress;
  std::vector<SampledToken> tokens;
  for (int64_t row = 0; row < rows.count; ++row) {
    tokens.push_back(
        Sample(CandidateRow(rows.Logits(row),
                            maxima.subspan(row * rows.blocks, rows.blocks)),
               *job.params, *job.history, job.position + row, job.want_logprob,
               job.num_top,
               row < static_cast<int64_t>(job.masks.size())
                   ? absl::MakeConstSpan(job.masks[row])
                   : absl::Span<const uint64_t>()));
    if (row + 1 == rows.count || tokens.back().id != job.drafts[row]) break;
    if (penalties) ++job.history->generated[job.drafts[row]];
    Observe(job.params->rules, job.position + row - job.history->prompt_tokens,
            job.drafts[row], &job.history->progress);
  }
  if (!job.drafts.empty()) job.history->progress = progress;
  for (size_t i = 0; penalties && i + 1 < tokens.size(); ++i) {
    const auto count = job.history->generated.find(tokens[i].id);
    if (--count->second == 0) job.history->generated.erase(count);
  }
  return tokens;
}

}  // namespace

void SampleTokens(absl::Span<const SampleJob> jobs, ComputePool* pool,
                  absl::Span<std::vector<SampledToken>> tokens) {
  SY_CHECK(jobs.size() == tokens.size());
  // What reads whole rows is shared out over all of them, so that a single
  // sequence has all threads as well.
  std::vector<JobRows> rows;
  std::vector<int64_t> first_block = {0};  // of each job, and the end
  for (const SampleJob& job : jobs) {
    rows.emplace_back(job);
    first_block.push_back(first_block.back() +
                          rows.back().count * rows.back().blocks);
  }
  std::vector<float> maxima(static_cast<size_t>(first_block.back()));
  pool->ParallelFor(
      first_block.back(), kMinBlocks, [&](int64_t begin, int64_t end) {
        for (size_t i = 0; i < rows.size(); ++i) {
          for (int64_t row = 0; row < rows[i].count; ++row) {
            const int64_t first = first_block[i] + row * rows[i].blocks;
            const int64_t last = first + rows[i].blocks;
            if (begin >= last || end <= first) continue;
            FindBlockMaxima(
                rows[i].Logits(row), std::max(begin, first) - first,
                std::min(end, last) - first,
                absl::MakeSpan(maxima).subspan(first, rows[i].blocks));
          }
        }
      });
  pool->ParallelFor(
      static_cast<int64_t>(jobs.size()), 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          tokens[i] = SampleRows(
              rows[i],
              absl::MakeConstSpan(maxima).subspan(
                  first_block[i], first_block[i + 1] - first_block[i]));
        }
      });
}

}  // namespace switchyard::attention_worker
