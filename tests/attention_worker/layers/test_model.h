// A model on one thread or several, ready to step, with what it computed kept.

#ifndef SWITCHYARD_TESTS_ATTENTION_WORKER_LAYERS_TEST_MODEL_H_
#define SWITCHYARD_TESTS_ATTENTION_WORKER_LAYERS_TEST_MODEL_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "attention_worker/layers/model_runner.h"
#include "attention_worker/layers/mtp_head.h"
#include "attention_worker/layers/step_timer.h"
#include "attention_worker/state/sequence_state.h"
#include "base/compute_pool.h"
#include "gmock/gmock.h"
#include "kernels/kernel_table.h"
#include "kernels/matrix.h"
#include "model/checkpoint.h"
#include "model/weight_copies.h"
#include "tests/attention_worker/layers/direct_dispatcher.h"

namespace switchyard::attention_worker {

struct TestModelOptions {
  // kQ8, kQ4, kBF16Dot: the matrices are that, experts' and others.
  kernels::DType experts = kernels::DType::kF32;
  kernels::DType dense = kernels::DType::kF32;
  kernels::KvDType kv = kernels::KvDType::kF32;
  model::WeightPlacement weights = model::WeightPlacement::kAuto;
  int threads = 1;
  const kernels::KernelTable* kernels = nullptr;  // null: the process's
  bool probe = false;
  StepTimer* timer = nullptr;
};

class TestModel {
 public:
  // Provisional tokens of a step, if the checkpoint has an MTP head.
  static constexpr int kMaxDrafts = 4;

  // Fails the test if the checkpoint cannot be opened.
  explicit TestModel(const std::string& directory,
                     const TestModelOptions& options = {});

  const model::Checkpoint& checkpoint() const { return *checkpoint_; }
  const model::ModelConfig& config() const { return checkpoint_->config(); }
  DirectDispatcher& dispatcher() { return *dispatcher_; }
  ModelRunner& runner() { return *runner_; }
  StateMemory& memory() { return *memory_; }
  MtpHead& mtp() { return *mtp_; }  // only of checkpoints that have one

  // The model outlives its states.
  std::unique_ptr<SequenceState> NewState(int64_t max_tokens = 256) const;

  // One step of one sequence; logits of every token.
  std::vector<float> Run(SequenceState* state,
                         absl::Span<const int32_t> tokens);
  // All of `tokens` from an empty state, in pieces of these sizes (over and
  // over): every token's logits, and the state behind it.
  std::pair<std::vector<float>, std::unique_ptr<SequenceState>> RunInPieces(
      absl::Span<const int32_t> tokens, absl::Span<const int64_t> sizes);

  // What the probe saw at a point of a layer, all steps' rows one after
  // another.
  using Probed = std::map<std::pair<std::string, int>, std::vector<float>>;
  Probed probed;

 private:
  std::unique_ptr<model::Checkpoint> checkpoint_;
  std::unique_ptr<ComputePool> pool_;
  std::unique_ptr<DirectDispatcher> dispatcher_;
  std::unique_ptr<ModelRunner> runner_;
  std::unique_ptr<MtpHead> mtp_;
  std::unique_ptr<StateMemory> memory_;
};

// K and V of one layer, of the first `tokens` tokens, as the floats that are in
// the cache: [tokens, KV heads, D].
std::vector<float> CachedKeys(const KvLayer& kv, int64_t tokens);
std::vector<float> CachedValues(const KvLayer& kv, int64_t tokens);

// Everything that a state holds of its tokens, in one vector: K and V of them,
// S, tails, the last hidden state.
std::vector<float> StateValues(SequenceState* state);

// The index of the largest; of equals the first.
int32_t ArgMax(absl::Span<const float> logits);

// max |a - b|, NaN if there is one on either side or the sizes differ: compare
// it with EXPECT_LE, which NaN fails.
double MaxDifference(absl::Span<const float> a, absl::Span<const float> b);
double MaxAbs(absl::Span<const float> a);

// Equal as bits, sizes too; says where the first difference is.
::testing::AssertionResult SameBits(absl::Span<const float> a,
                                    absl::Span<const float> b);

// `size` tokens in [0, vocab_size) that look random.
std::vector<int32_t> SomeTokens(int64_t size, int64_t vocab_size,
                                uint32_t seed = 1);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_TESTS_ATTENTION_WORKER_LAYERS_TEST_MODEL_H_
