// A ModelRunner that computes right away, and can be told to fail or to wait.

#ifndef SWITCHYARD_TESTS_TESTING_FAKE_MODEL_RUNNER_H_
#define SWITCHYARD_TESTS_TESTING_FAKE_MODEL_RUNNER_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/layers/model_runner.h"
#include "attention_worker/state/sequence_state.h"
#include "base/check.h"
#include "base/mutex.h"
#include "model/config.h"

namespace switchyard::testing {

// A working model of its own, not a script: logits are a hash of every token
// that the sequence has read, and that hash lives in the sequence's state. So a
// token that is read twice, left out, or read into another state gives other
// logits. Thread-safe.
class FakeModelRunner final : public attention_worker::ModelRunner {
 public:
  // OK, or how the chunk fails; its state is then torn.
  using Fault =
      std::function<absl::Status(const attention_worker::SequenceChunk& chunk)>;

  explicit FakeModelRunner(int64_t vocab_size, int64_t max_draft_tokens = 0)
      : vocab_size_(vocab_size), shape_(Config(), max_draft_tokens) {}

  // One layer of each kind; 64 bytes a token.
  static model::ModelConfig Config() {
    model::ModelConfig config;
    config.layer_types = {model::LayerType::kLinearAttention,
                          model::LayerType::kFullAttention};
    config.num_key_value_heads = 1;
    config.head_dim = 8;
    config.linear_num_key_heads = 1;
    config.linear_num_value_heads = 1;
    config.linear_key_head_dim = 4;
    config.linear_value_head_dim = 4;
    config.linear_conv_kernel_dim = 2;
    config.hidden_size = 2;  // of which each bit is the hash's
    return config;
  }

  // What the model answers to `tokens`.
  std::vector<float> LogitsAfter(absl::Span<const int32_t> tokens) const {
    uint64_t hash = 0;
    for (const int32_t token : tokens) hash = Mix(hash, token);
    return Logits(hash);
  }

  void SetFault(Fault fault) {
    MutexLock lock(&mutex_);
    fault_ = std::move(fault);
  }

  // From now on each Step waits at its beginning until Release().
  void Hold() {
    MutexLock lock(&mutex_);
    holding_ = true;
  }
  void Release() {
    MutexLock lock(&mutex_);
    holding_ = false;
    changed_.SignalAll();
  }
  // True once a Step waits; false if none came within a minute.
  bool WaitUntilHeld() {
    const absl::Time deadline = absl::Now() + absl::Minutes(1);
    MutexLock lock(&mutex_);
    while (held_ == 0) {
      if (!changed_.WaitUntil(&mutex_, deadline)) return held_ > 0;
    }
    return true;
  }

  // The sizes of all chunks of all steps so far.
  std::vector<std::vector<int64_t>> steps() const {
    MutexLock lock(&mutex_);
    return steps_;
  }
  // Tokens of chunks without drafts whose hidden states were asked for: those
  // of prompts, if somebody drafts.
  int64_t tokens_with_hidden() const {
    MutexLock lock(&mutex_);
    return tokens_with_hidden_;
  }
  // The deadlines of the chunks of the last step.
  std::vector<absl::Time> last_deadlines() const {
    MutexLock lock(&mutex_);
    return last_deadlines_;
  }

  std::vector<attention_worker::ChunkResult> Step(
      absl::Span<const attention_worker::SequenceChunk> chunks) override {
    const Fault fault = Enter(chunks);
    std::vector<attention_worker::ChunkResult> results;
    for (const attention_worker::SequenceChunk& chunk : chunks) {
      results.push_back(Read(chunk, fault));
    }
    return results;
  }

  std::vector<float> LastLogits(
      attention_worker::SequenceState* state) override {
    uint64_t hash;
    std::memcpy(&hash, state->last_hidden(), sizeof hash);
    SY_CHECK(hash == HashOfKeys(*state));
    return Logits(hash);
  }

  void Settle(
      absl::Span<attention_worker::SequenceState* const> states) override {
    for (attention_worker::SequenceState* const state : states) {
      const uint64_t hash = HashWithPending(state);
      SY_CHECK(hash == HashOfKeys(*state));
      std::memcpy(state->recurrent(0), &hash, sizeof hash);
      state->pending_tokens = 0;
    }
  }

  const attention_worker::StateShape& state_shape() const override {
    return shape_;
  }
  SharedWeights shared_weights() const override { return {}; }

  // For a fake MTP head: the hash after one more token, and its logits.
  static uint64_t HashAfter(uint64_t hash, int32_t token) {
    return Mix(hash, token);
  }
  std::vector<float> LogitsOf(uint64_t hash) const { return Logits(hash); }
  // The cached "key" of the token at `position`: its id.
  int32_t CachedToken(const attention_worker::SequenceState& state,
                      int64_t position) const {
    return static_cast<int32_t>(*KeyOf(state, position));
  }

 private:
  Fault Enter(absl::Span<const attention_worker::SequenceChunk> chunks) {
    MutexLock lock(&mutex_);
    SY_CHECK(held_ == 0);  // one caller at a time
    std::vector<int64_t> sizes;
    last_deadlines_.clear();
    for (const attention_worker::SequenceChunk& chunk : chunks) {
      sizes.push_back(static_cast<int64_t>(chunk.tokens.size()));
      if (chunk.want_hidden && chunk.provisional_tokens == 0) {
        tokens_with_hidden_ += sizes.back();
      }
      last_deadlines_.push_back(chunk.deadline);
    }
    steps_.push_back(std::move(sizes));
    ++held_;
    changed_.SignalAll();
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    while (holding_) {
      SY_CHECK(changed_.WaitUntil(&mutex_, deadline));
    }
    --held_;
    return fault_;
  }

  attention_worker::ChunkResult Read(
      const attention_worker::SequenceChunk& chunk, const Fault& fault) const {
    attention_worker::SequenceState* state = chunk.state;
    SY_CHECK(state->health == attention_worker::StateHealth::kClean);
    SY_CHECK(!chunk.tokens.empty());
    SY_CHECK(state->num_tokens + static_cast<int64_t>(chunk.tokens.size()) <=
             std::min(state->max_tokens(), state->room()));
    attention_worker::ChunkResult result;
    if (fault) result.status = fault(chunk);
    if (!result.status.ok()) {
      state->health = attention_worker::StateHealth::kTorn;
      return result;
    }
    uint64_t hash = HashWithPending(state);
    SY_CHECK(hash == HashOfKeys(*state));
    const int64_t size = static_cast<int64_t>(chunk.tokens.size());
    const int64_t certain = size - chunk.provisional_tokens;
    SY_CHECK(certain >= 1 &&
             chunk.provisional_tokens <= shape_.max_draft_tokens);
    const attention_worker::SnapshotPoint* snapshot = chunk.snapshots.begin();
    for (int64_t i = 0; i < size; ++i) {
      const int32_t token = chunk.tokens[i];
      SY_CHECK(token >= 0 && token < vocab_size_);
      hash = Mix(hash, token);
      *KeyOf(*state, state->num_tokens + i) = static_cast<float>(token);
      if (i < certain) {
        std::memcpy(state->last_hidden(), &hash, sizeof hash);
        std::memcpy(state->recurrent(0), &hash, sizeof hash);
      } else {
        *DraftOf(state, i - certain) = static_cast<float>(token);
      }
      if (snapshot != chunk.snapshots.end() &&
          snapshot->after_tokens == i + 1) {
        std::memcpy(snapshot->fixed + shape_.RecurrentInFixed(0), &hash,
                    sizeof hash);
        std::memcpy(snapshot->fixed + shape_.HiddenInFixed(), &hash,
                    sizeof hash);
        ++snapshot;
      }
      if (chunk.want_hidden) {
        result.hidden.resize(result.hidden.size() + 2);
        std::memcpy(&result.hidden[2 * i], &hash, sizeof hash);
      }
      if (chunk.logits == attention_worker::LogitsOf::kEveryToken ||
          (chunk.logits == attention_worker::LogitsOf::kLastToken &&
           i + 1 == size)) {
        const std::vector<float> row = Logits(hash);
        result.logits.insert(result.logits.end(), row.begin(), row.end());
      }
    }
    state->num_tokens += certain;
    state->pending_tokens = 0;
    return result;
  }

  // The recurrent state's hash, and the drafted tokens that it lacks.
  uint64_t HashWithPending(attention_worker::SequenceState* state) const {
    uint64_t hash;
    std::memcpy(&hash, state->recurrent(0), sizeof hash);
    for (int64_t t = 0; t < state->pending_tokens; ++t) {
      hash = Mix(hash, static_cast<int32_t>(*DraftOf(state, t)));
    }
    return hash;
  }

  float* DraftOf(attention_worker::SequenceState* state, int64_t row) const {
    return state->draft_rows(0) + row * shape_.DraftRowFloats();
  }

  // The cached "key" of the token at `position`: its id.
  float* KeyOf(const attention_worker::SequenceState& state,
               int64_t position) const {
    const attention_worker::KvLayer kv = {state.pages(), shape_.kv, 0};
    return reinterpret_cast<float*>(kv.KeyAt(position, 0));
  }

  // What the state must say if its pages are those of the tokens that it read.
  uint64_t HashOfKeys(const attention_worker::SequenceState& state) const {
    uint64_t hash = 0;
    for (int64_t t = 0; t < state.num_tokens; ++t) {
      hash = Mix(hash, static_cast<int32_t>(*KeyOf(state, t)));
    }
    return hash;
  }

  // splitmix64's finisher (Steele, Lea, Flood 2014).
  static uint64_t Mix(uint64_t hash, int32_t token) {
    uint64_t z = hash + 0x9e3779b97f4a7c15 * (static_cast<uint64_t>(token) + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  // Each in [0, 8).
  std::vector<float> Logits(uint64_t hash) const {
    std::vector<float> row(vocab_size_);
    for (int64_t id = 0; id < vocab_size_; ++id) {
      row[id] = static_cast<float>(Mix(hash, static_cast<int32_t>(id)) >> 40) *
                0x1p-21f;
    }
    return row;
  }

  const int64_t vocab_size_;
  const attention_worker::StateShape shape_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  int held_ ABSL_GUARDED_BY(mutex_) = 0;
  Fault fault_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::vector<int64_t>> steps_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Time> last_deadlines_ ABSL_GUARDED_BY(mutex_);
  int64_t tokens_with_hidden_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_FAKE_MODEL_RUNNER_H_
