#include "tests/attention_worker/layers/test_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "base/check.h"
#include "tests/testing/quantized_checkpoint.h"

namespace switchyard::attention_worker {

TestModel::TestModel(const std::string& directory,
                     const TestModelOptions& options) {
  auto checkpoint = model::Checkpoint::Open(directory);
  if (!checkpoint.ok()) ADD_FAILURE() << checkpoint.status();
  SY_CHECK(checkpoint.ok());
  checkpoint_ = *std::move(checkpoint);
  if (options.experts != kernels::DType::kF32 ||
      options.dense != kernels::DType::kF32) {
    checkpoint_ = testing::QuantizeCheckpoint(std::move(checkpoint_),
                                              options.experts, options.dense);
  }
  pool_ = NewThreadPool(options.threads, "test");
  const kernels::KernelTable* const kernels =
      options.kernels != nullptr ? options.kernels : &kernels::Kernels();
  dispatcher_ = std::make_unique<DirectDispatcher>(checkpoint_.get(), kernels);
  ModelRunner::Options runner_options;
  runner_options.checkpoint = checkpoint_.get();
  runner_options.dispatcher = dispatcher_.get();
  runner_options.pool = pool_.get();
  runner_options.kernels = kernels;
  runner_options.timer = options.timer;
  runner_options.weights = options.weights;
  runner_options.kv_dtype = options.kv;
  if (checkpoint_->has_mtp()) runner_options.max_draft_tokens = kMaxDrafts;
  const ModelRunner::Options mtp_options = runner_options;
  if (options.probe) {
    runner_options.probe = [this](const char* point, int layer, int64_t rows,
                                  int64_t width, const float* data) {
      std::vector<float>& values = probed[{point, layer}];
      values.insert(values.end(), data, data + rows * width);
    };
  }
  auto runner = ModelRunner::Create(runner_options);
  if (!runner.ok()) ADD_FAILURE() << runner.status();
  SY_CHECK(runner.ok());
  runner_ = *std::move(runner);
  if (checkpoint_->has_mtp()) {
    auto mtp = MtpHead::Create(mtp_options, runner_.get());
    if (!mtp.ok()) ADD_FAILURE() << mtp.status();
    SY_CHECK(mtp.ok());
    mtp_ = *std::move(mtp);
  }
  auto memory = StateMemory::Create(runner_->state_shape(), int64_t{1} << 30);
  SY_CHECK(memory.ok());
  memory_ = *std::move(memory);
}

std::unique_ptr<SequenceState> TestModel::NewState(int64_t max_tokens) const {
  std::unique_ptr<SequenceState> state =
      SequenceState::TryCreate(memory_.get(), max_tokens);
  SY_CHECK(state != nullptr && state->TryGrow(max_tokens));
  return state;
}

std::vector<float> TestModel::Run(SequenceState* state,
                                  absl::Span<const int32_t> tokens) {
  SequenceChunk chunk;
  chunk.state = state;
  chunk.tokens = tokens;
  chunk.logits = LogitsOf::kEveryToken;
  std::vector<ChunkResult> results =
      runner_->Step(absl::MakeConstSpan(&chunk, 1));
  SY_CHECK(results.size() == 1);
  EXPECT_TRUE(results[0].status.ok()) << results[0].status;
  return std::move(results[0].logits);
}

std::pair<std::vector<float>, std::unique_ptr<SequenceState>>
TestModel::RunInPieces(absl::Span<const int32_t> tokens,
                       absl::Span<const int64_t> sizes) {
  std::unique_ptr<SequenceState> state =
      NewState(static_cast<int64_t>(tokens.size()));
  std::vector<float> logits;
  for (size_t piece = 0; !tokens.empty(); ++piece) {
    const size_t size =
        std::min<size_t>(sizes[piece % sizes.size()], tokens.size());
    const std::vector<float> rows = Run(state.get(), tokens.first(size));
    logits.insert(logits.end(), rows.begin(), rows.end());
    tokens.remove_prefix(size);
  }
  return {std::move(logits), std::move(state)};
}

namespace {

template <typename RowAt>
std::vector<float> CachedRows(const KvLayout& layout, int64_t tokens,
                              RowAt row_at) {
  std::vector<float> rows(tokens * layout.num_kv_heads * layout.head_dim);
  float* row = rows.data();
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < layout.num_kv_heads; ++h) {
      kernels::DecodeKvRow(layout.dtype, row_at(t, h), layout.head_dim, row);
      row += layout.head_dim;
    }
  }
  return rows;
}

}  // namespace

std::vector<float> CachedKeys(const KvLayer& kv, int64_t tokens) {
  return CachedRows(kv.layout, tokens,
                    [&](int64_t t, int64_t h) { return kv.KeyAt(t, h); });
}

std::vector<float> CachedValues(const KvLayer& kv, int64_t tokens) {
  return CachedRows(kv.layout, tokens,
                    [&](int64_t t, int64_t h) { return kv.ValueAt(t, h); });
}

std::vector<float> StateValues(SequenceState* state) {
  const StateShape& shape = state->shape();
  std::vector<float> values;
  const auto append = [&values](const float* data, int64_t n) {
    values.insert(values.end(), data, data + n);
  };
  for (int i = 0; i < shape.num_full_layers; ++i) {
    const KvLayer kv = {state->pages(), shape.kv, i};
    for (const std::vector<float>& rows :
         {CachedKeys(kv, state->num_tokens),
          CachedValues(kv, state->num_tokens)}) {
      append(rows.data(), static_cast<int64_t>(rows.size()));
    }
  }
  for (int i = 0; i < shape.num_linear_layers; ++i) {
    append(state->recurrent(i), shape.recurrent_floats);
    append(state->conv_tail(i), shape.conv_floats);
  }
  append(state->last_hidden(), shape.hidden_floats);
  return values;
}

int32_t ArgMax(absl::Span<const float> logits) {
  return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) -
                              logits.begin());
}

double MaxDifference(absl::Span<const float> a, absl::Span<const float> b) {
  if (a.size() != b.size()) return std::numeric_limits<double>::quiet_NaN();
  double max = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(double{a[i]} - b[i]);
    if (!(difference <= max)) max = difference;  // NaN stays
    if (std::isnan(max)) return max;
  }
  return max;
}

double MaxAbs(absl::Span<const float> a) {
  double max = 0;
  for (float value : a) max = std::max(max, std::abs(double{value}));
  return max;
}

::testing::AssertionResult SameBits(absl::Span<const float> a,
                                    absl::Span<const float> b) {
  if (a.size() != b.size()) {
    return ::testing::AssertionFailure()
           << a.size() << " values and " << b.size();
  }
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::memcmp(&a[i], &b[i], sizeof(float)) != 0) {
      return ::testing::AssertionFailure()
             << "value " << i << " of " << a.size() << ": " << a[i] << " and "
             << b[i] << ", " << a[i] - b[i] << " apart";
    }
  }
  return ::testing::AssertionSuccess();
}

std::vector<int32_t> SomeTokens(int64_t size, int64_t vocab_size,
                                uint32_t seed) {
  std::minstd_rand random(seed);
  std::vector<int32_t> tokens(size);
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % vocab_size);
  }
  return tokens;
}

}  // namespace switchyard::attention_worker
