// The MTP head of a FakeModelRunner: guesses right unless it is told not to.

#ifndef SWITCHYARD_TESTS_TESTING_FAKE_MTP_HEAD_H_
#define SWITCHYARD_TESTS_TESTING_FAKE_MTP_HEAD_H_

#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "attention_worker/layers/mtp_head.h"
#include "base/check.h"
#include "tests/testing/fake_model_runner.h"

namespace switchyard::testing {

// Knows the runner's function, so a guess is right if all that it is given is:
// the true hidden state and token, in the pages of the right sequence. Not
// thread-safe.
class FakeMtpHead final : public attention_worker::MtpHead {
 public:
  // `runner` is not owned. wrong(position): the guess of the token at this
  // position of a sequence is to be wrong.
  explicit FakeMtpHead(const FakeModelRunner* runner,
                       std::function<bool(int64_t position)> wrong = nullptr)
      : runner_(*runner), wrong_(std::move(wrong)) {}

  absl::Status status;    // of every chunk from now on
  int64_t num_pairs = 0;  // run so far

  std::vector<attention_worker::MtpResult> Step(
      absl::Span<const attention_worker::MtpChunk> chunks) override {
    std::vector<attention_worker::MtpResult> results;
    for (const attention_worker::MtpChunk& chunk : chunks) {
      results.push_back(Read(chunk));
    }
    return results;
  }

 private:
  attention_worker::MtpResult Read(const attention_worker::MtpChunk& chunk) {
    attention_worker::SequenceState* const state = chunk.state;
    attention_worker::MtpResult result;
    result.status = status;
    if (!status.ok()) return result;
    const int64_t pairs = static_cast<int64_t>(chunk.next_tokens.size());
    SY_CHECK(static_cast<int64_t>(chunk.hidden.size()) == 2 * pairs);
    SY_CHECK(state->num_mtp_pairs + pairs <= state->room());
    // Earlier pairs are this sequence's, or were never run.
    for (int64_t p = 0; p < state->num_mtp_pairs; ++p) {
      if (p + 1 >= state->num_tokens) break;
      const int32_t kept = static_cast<int32_t>(*PairOf(*state, p));
      SY_CHECK(kept == 0 || kept == 1 + runner_.CachedToken(*state, p + 1));
    }
    for (int64_t i = 0; i < pairs; ++i) {
      const int64_t pair = state->num_mtp_pairs + i;
      uint64_t hash;
      std::memcpy(&hash, chunk.hidden.data() + 2 * i, sizeof hash);
      hash = FakeModelRunner::HashAfter(hash, chunk.next_tokens[i]);
      *PairOf(*state, pair) = static_cast<float>(1 + chunk.next_tokens[i]);
      result.hidden.resize(result.hidden.size() + 2);
      std::memcpy(&result.hidden[2 * i], &hash, sizeof hash);
      if (chunk.logits == attention_worker::LogitsOf::kNothing ||
          (chunk.logits == attention_worker::LogitsOf::kLastToken &&
           i + 1 < pairs)) {
        continue;
      }
      std::vector<float> row = runner_.LogitsOf(hash);
      if (wrong_ && wrong_(pair + 2)) {
        for (float& logit : row) logit = -logit;
      }
      result.logits.insert(result.logits.end(), row.begin(), row.end());
    }
    state->num_mtp_pairs += pairs;
    num_pairs += pairs;
    return result;
  }

  // 1 + the token of a pair, where its key is kept.
  static float* PairOf(const attention_worker::SequenceState& state,
                       int64_t pair) {
    const attention_worker::StateShape& shape = state.shape();
    const attention_worker::KvLayer kv = {state.pages(), shape.kv,
                                          shape.num_full_layers};
    return reinterpret_cast<float*>(kv.KeyAt(pair, 0));
  }

  const FakeModelRunner& runner_;
  const std::function<bool(int64_t position)> wrong_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_FAKE_MTP_HEAD_H_
