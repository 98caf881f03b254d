// From one row of logits to one token. Pure functions: the same row, history
// and (seed, position) give the same token and logprobs anywhere (promise 2).

#ifndef SWITCHYARD_ATTENTION_WORKER_SAMPLING_SAMPLER_H_
#define SWITCHYARD_ATTENTION_WORKER_SAMPLING_SAMPLER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "attention_worker/sampling/token_rules.h"
#include "base/compute_pool.h"

namespace switchyard::attention_worker {

struct SamplingParams {
  double temperature = 1.0;         // < 1e-6: greedy, lowest id on ties
  double top_p = 1.0;               // (0, 1]
  int top_k = 0;                    // <= 0: off
  double min_p = 0.0;               // [0, 1]
  double presence_penalty = 0.0;    // [-2, 2], over generated tokens
  double frequency_penalty = 0.0;   // [-2, 2], over generated tokens
  double repetition_penalty = 1.0;  // > 0, over prompt and generated tokens
  uint64_t seed = 0;
  TokenRules rules = {};
};

// What the penalties and the rules look at.
struct TokenHistory {
  // How often each token occurred; for the penalties.
  absl::flat_hash_map<int32_t, int32_t> generated;  // id -> count
  absl::flat_hash_map<int32_t, int32_t> prompt;     // id -> count
  int64_t prompt_tokens = 0;  // position of the output's first token
  RuleProgress progress;
};

struct SampledToken {
  int32_t id = 0;
  // Natural log of softmax(raw logits): before penalties, temperature and cuts.
  float logprob = 0;
  // The `num_top` most likely tokens, best first, lowest id first on ties.
  std::vector<std::pair<int32_t, float>> top_logprobs;
  // Of ScoreToken: the token's place in such a list of the whole vocabulary, 1
  // for the first. 0: not asked for.
  int64_t rank = 0;
};

// Order as in Transformers: penalties, the rules' changes, the mask,
// temperature, top-k, top-p, min-p, draw. A token that the rules force is not
// drawn. `allowed`: a bit for each token that may be chosen, one at least; it
// outdoes the rules. Empty: all may. `position` is the index in the sequence of
// the token being chosen. NaN logits count as -infinity.
SampledToken SampleToken(absl::Span<const float> logits,
                         const SamplingParams& params,
                         const TokenHistory& history, int64_t position,
                         bool want_logprob, int num_top,
                         absl::Span<const uint64_t> allowed = {});

// A token that is given, with its logprobs and its rank.
SampledToken ScoreToken(absl::Span<const float> logits, int32_t id,
                        int num_top);

// The next tokens of one sequence: one, and one more for every drafted token
// that turns out right. Nothing is owned.
struct SampleJob {
  absl::Span<const float> logits;         // [drafts + 1, V]
  absl::Span<const int32_t> drafts = {};  // guesses of the tokens to be chosen
  // Of each row, as SampleToken's `allowed`; fewer than rows: empty ones.
  absl::Span<const std::vector<uint64_t>> masks = {};
  const SamplingParams* params = nullptr;
  // Changed meanwhile if there are drafts, then as before: a job's own.
  TokenHistory* history = nullptr;
  int64_t position = 0;  // of the first token to be chosen
  bool want_logprob = false;
  int num_top = 0;
};

// tokens[i] = what SampleToken chooses row after row of jobs[i], up to the
// first token that was not the one drafted: just those tokens that it would
// choose without drafts. The jobs are shared out over the pool.
void SampleTokens(absl::Span<const SampleJob> jobs, ComputePool* pool,
                  absl::Span<std::vector<SampledToken>> tokens);

// Uniform in [0, 1) with 53 bits, from Philox4x32-10 (Salmon et al. 2011) with
// key = seed and counter = position: no state, so a replay draws the same
// numbers.
double PhiloxUniform(uint64_t seed, uint64_t position);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_SAMPLING_SAMPLER_H_
