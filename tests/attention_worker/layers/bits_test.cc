// A token's bits depend on its own sequence alone: not on how the prompt was
// cut, on what else is in the step, on the number of threads, or on the
// instruction set (DESIGN.md, promise 2). Every comparison here is of bits.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "attention_worker/state/kv_dtype.h"
#include "gtest/gtest.h"
#include "kernels/kernel_table.h"
#include "model/weight_values.h"
#include "tests/attention_worker/layers/test_model.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using kernels::DType;
using kernels::KvDType;
using ::switchyard::testing::FixturePath;
using ::switchyard::testing::IsOk;

// A fixture's model as it is (kF32), or with its experts' and its other
// matrices quantised; and what its KV cache is in.
struct Model {
  const char* fixture;
  DType experts = DType::kF32;
  DType dense = DType::kF32;
  KvDType kv = KvDType::kF32;
};

class BitsTest : public ::testing::TestWithParam<Model> {
 protected:
  static std::string Directory() { return FixturePath(GetParam().fixture); }
  static TestModelOptions Options(TestModelOptions options = {}) {
    options.experts = GetParam().experts;
    options.dense = GetParam().dense;
    options.kv = GetParam().kv;
    return options;
  }

  // The prompt as one chunk, on one thread: what all else is compared with.
  void SetUp() override {
    TestModel model(Directory(), Options());
    tokens_ = SomeTokens(61, model.config().vocab_size);
    const auto state = model.NewState();
    logits_ = model.Run(state.get(), tokens_);
    state_ = StateValues(state.get());
    ASSERT_EQ(logits_.size(), tokens_.size() * model.config().vocab_size);
  }

  std::vector<int32_t> tokens_;
  std::vector<float> logits_;
  std::vector<float> state_;
};

std::string ModelName(const ::testing::TestParamInfo<Model>& info) {
  std::string name = info.param.fixture;
  for (const DType dtype : {info.param.experts, info.param.dense}) {
    if (dtype == DType::kF32) continue;
    absl::StrAppend(&name, "_", std::string(model::DTypeName(dtype)));
  }
  if (info.param.kv != KvDType::kF32) {
    absl::StrAppend(&name, "_kv_", KvDTypeName(info.param.kv));
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    Fixtures, BitsTest,
    ::testing::Values(
        Model{"tiny_a_bf16"}, Model{"tiny_b_fp32"}, Model{"tiny_a_yarn"},
        Model{"tiny_a_bf16", DType::kQ8, DType::kQ8},
        Model{"tiny_b_fp32", DType::kQ8, DType::kQ8},
        Model{"tiny_b_fp32", DType::kQ4, DType::kQ4},
        Model{"tiny_a_bf16", DType::kQ4, DType::kQ8},
        Model{"tiny_a_bf16", DType::kBF16Dot, DType::kBF16Dot},
        Model{"tiny_b_fp32", DType::kBF16Dot, DType::kQ8},
        Model{"tiny_b_fp32", DType::kF32, DType::kBF16Dot},
        Model{"tiny_a_bf16", DType::kF32, DType::kF32, KvDType::kBF16},
        Model{"tiny_b_fp32", DType::kF32, DType::kF32, KvDType::kI8},
        Model{"tiny_a_bf16", DType::kQ4, DType::kQ8, KvDType::kI8}),
    ModelName);

TEST_P(BitsTest, HoweverThePromptIsCut) {
  TestModel model(Directory(), Options());
  const std::vector<std::vector<int64_t>> cuts = {
      {1}, {2}, {7, 1, 3}, {17, 16, 15}, {60, 1}, {1, 60}};
  for (const std::vector<int64_t>& sizes : cuts) {
    const auto [logits, state] = model.RunInPieces(tokens_, sizes);
    EXPECT_TRUE(SameBits(logits, logits_)) << "pieces of " << sizes[0];
    EXPECT_TRUE(SameBits(StateValues(state.get()), state_))
        << "pieces of " << sizes[0];
  }
}

TEST_P(BitsTest, FromASnapshotOnTheWay) {
  TestModel model(Directory(), Options({.threads = 2}));
  for (const int64_t cut : {1, 2, 7, 33, 60, 61}) {
    const auto first = model.NewState();
    const StateBlock block = model.memory().TryTakeFixed();
    const SnapshotPoint point = {.after_tokens = cut, .fixed = block.get()};
    SequenceChunk chunk{.state = first.get(), .tokens = tokens_};
    chunk.snapshots = absl::MakeConstSpan(&point, 1);
    ASSERT_THAT(model.runner().Step(absl::MakeConstSpan(&chunk, 1))[0].status,
                IsOk());
    EXPECT_TRUE(SameBits(StateValues(first.get()), state_)) << cut;
    const auto second = SequenceState::TryRestore(
        &model.memory(), first->SnapshotAt(cut, block), /*max_tokens=*/100);
    ASSERT_NE(second, nullptr);
    ASSERT_TRUE(second->TryGrow(61));
    const int64_t vocab = model.config().vocab_size;
    EXPECT_TRUE(SameBits(
        model.runner().LastLogits(second.get()),
        absl::MakeConstSpan(logits_).subspan((cut - 1) * vocab, vocab)))
        << cut;
    if (cut < 61) {
      EXPECT_TRUE(SameBits(
          model.Run(second.get(), absl::MakeConstSpan(tokens_).subspan(cut)),
          absl::MakeConstSpan(logits_).subspan(cut * vocab)))
          << cut;
    }
    EXPECT_TRUE(SameBits(StateValues(second.get()), state_)) << cut;
  }
}

TEST_P(BitsTest, WithDraftsRightAndWrong) {
  TestModel model(Directory(), Options({.threads = 2}));
  if (!model.checkpoint().has_mtp()) GTEST_SKIP() << "it cannot draft";
  const int64_t vocab = model.config().vocab_size;
  const int64_t hidden = model.config().hidden_size;
  std::mt19937 random(7);
  const auto below = [&random](int64_t n) {
    return static_cast<int64_t>(random() % static_cast<uint64_t>(n));
  };
  for (int round = 0; round < 6; ++round) {
    const auto state = model.NewState();
    while (state->num_tokens < 61) {
      const int64_t begin = state->num_tokens;
      const int64_t certain = std::min<int64_t>(1 + below(3), 61 - begin);
      const int64_t right =
          std::min(below(TestModel::kMaxDrafts + 1), 61 - begin - certain);
      const int64_t wrong = below(TestModel::kMaxDrafts + 1 - right);
      std::vector<int32_t> tokens(tokens_.begin() + begin,
                                  tokens_.begin() + begin + certain + right);
      for (int64_t i = 0; i < wrong; ++i) {
        tokens.push_back(static_cast<int32_t>(below(vocab)));
      }
      const SequenceChunk chunk{.state = state.get(),
                                .tokens = tokens,
                                .logits = LogitsOf::kEveryToken,
                                .want_hidden = true,
                                .provisional_tokens = right + wrong};
      const ChunkResult result =
          model.runner().Step(absl::MakeConstSpan(&chunk, 1))[0];
      ASSERT_THAT(result.status, IsOk());
      ASSERT_EQ(state->num_tokens, begin + certain);
      ASSERT_TRUE(SameBits(
          absl::MakeConstSpan(result.logits).first((certain + right) * vocab),
          absl::MakeConstSpan(logits_).subspan(begin * vocab,
                                               (certain + right) * vocab)))
          << "from token " << begin;
      const int64_t accepted = below(right + 1);
      state->AcceptDrafts(
          accepted, result.hidden.data() + (certain + accepted - 1) * hidden);
      if (below(3) == 0) {
        SequenceState* const settled = state.get();
        model.runner().Settle(absl::MakeConstSpan(&settled, 1));
        ASSERT_EQ(state->pending_tokens, 0);
      }
    }
    SequenceState* const last = state.get();
    model.runner().Settle(absl::MakeConstSpan(&last, 1));
    EXPECT_TRUE(SameBits(StateValues(last), state_));
    EXPECT_TRUE(
        SameBits(model.runner().LastLogits(last),
                 absl::MakeConstSpan(logits_).subspan(60 * vocab, vocab)));
  }
}

TEST_P(BitsTest, WhateverElseIsInTheStep) {
  TestModel model(Directory(), Options());
  const int64_t vocab = model.config().vocab_size;
  // Other sequences before, between and behind, that begin at other positions.
  const std::vector<int32_t> other = SomeTokens(100, vocab, 2);
  const auto before = model.NewState();
  model.Run(before.get(), absl::MakeConstSpan(other).first(13));
  const auto behind = model.NewState();
  const auto state = model.NewState();
  std::vector<float> logits;
  const absl::Span<const int32_t> tokens = tokens_;
  for (const auto& [begin, size] :
       {std::pair<size_t, size_t>(0, 40), {40, 1}, {41, 20}}) {
    const SequenceChunk chunks[] = {
        {.state = before.get(),
         .tokens = absl::MakeConstSpan(other).subspan(begin, 9),
         .logits = LogitsOf::kNothing},
        {.state = state.get(),
         .tokens = tokens.subspan(begin, size),
         .logits = LogitsOf::kEveryToken},
        {.state = behind.get(),
         .tokens = absl::MakeConstSpan(other).subspan(begin, 1)}};
    const std::vector<ChunkResult> results = model.runner().Step(chunks);
    ASSERT_EQ(results.size(), 3u);
    for (const ChunkResult& result : results)
      EXPECT_THAT(result.status, IsOk());
    EXPECT_EQ(results[0].logits.size(), 0u);
    EXPECT_EQ(results[2].logits.size(), static_cast<size_t>(vocab));
    logits.insert(logits.end(), results[1].logits.begin(),
                  results[1].logits.end());
  }
  EXPECT_TRUE(SameBits(logits, logits_));
  EXPECT_TRUE(SameBits(StateValues(state.get()), state_));
  EXPECT_EQ(before->num_tokens, 13 + 3 * 9);
  EXPECT_EQ(behind->num_tokens, 3);
}

TEST_P(BitsTest, HoweverManyThreads) {
  for (int threads : {2, 3, 8}) {
    TestModel model(Directory(), Options({.threads = threads}));
    const auto [logits, state] = model.RunInPieces(tokens_, {{23, 1, 1}});
    EXPECT_TRUE(SameBits(logits, logits_)) << threads;
    EXPECT_TRUE(SameBits(StateValues(state.get()), state_)) << threads;
  }
}

TEST_P(BitsTest, OnEveryInstructionSet) {
  for (const kernels::KernelTable* kernels : kernels::AvailableKernels()) {
    TestModel model(Directory(), Options({.threads = 2, .kernels = kernels}));
    const auto [logits, state] = model.RunInPieces(tokens_, {{30, 2, 1}});
    EXPECT_TRUE(SameBits(logits, logits_)) << kernels->name;
    EXPECT_TRUE(SameBits(StateValues(state.get()), state_)) << kernels->name;
  }
}

TEST_P(BitsTest, WhereverWeightsLie) {
  TestModel model(Directory(),
                  Options({.weights = model::WeightPlacement::kCopy}));
  const auto [logits, state] = model.RunInPieces(tokens_, {{30, 2, 1}});
  EXPECT_TRUE(SameBits(logits, logits_));
}

TEST_P(BitsTest, LastTokensLogitsAndHidden) {
  TestModel model(Directory(), Options({.probe = true}));
  const int64_t hidden = model.config().hidden_size;
  const auto state = model.NewState();
  const SequenceChunk chunk{
      .state = state.get(), .tokens = tokens_, .want_hidden = true};
  const ChunkResult result = model.runner().Step({&chunk, 1})[0];
  EXPECT_TRUE(SameBits(result.logits, absl::MakeConstSpan(logits_).last(
                                          model.config().vocab_size)));
  EXPECT_EQ(result.hidden.size(), tokens_.size() * hidden);
  EXPECT_TRUE(SameBits(
      result.hidden,
      model.probed[{"final_hidden", model.config().num_hidden_layers}]));
}

TEST_P(BitsTest, OfTheMtpHead) {
  TestModel model(Directory(), Options());
  const int64_t hidden_size = model.config().hidden_size;
  const auto state = model.NewState();
  const SequenceChunk chunk{
      .state = state.get(), .tokens = tokens_, .want_hidden = true};
  const ChunkResult result = model.runner().Step({&chunk, 1})[0];
  const absl::Span<const float> hidden = result.hidden;
  const auto pairs = [&](SequenceState* mtp_state, size_t begin, size_t size) {
    return MtpChunk{
        .state = mtp_state,
        .hidden = hidden.subspan(begin * hidden_size, size * hidden_size),
        .next_tokens = absl::MakeConstSpan(tokens_).subspan(begin + 1, size),
        .logits = LogitsOf::kEveryToken};
  };
  const auto whole_state = model.NewState();
  const MtpChunk whole = pairs(whole_state.get(), 0, 60);
  const MtpResult expected = model.mtp().Step({&whole, 1})[0];
  // In pieces, beside another sequence, on three threads.
  TestModel threaded(Directory(), Options({.threads = 3}));
  const auto pieces = threaded.NewState();
  const auto other = threaded.NewState();
  std::vector<float> logits, rows;
  for (const auto& [begin, size] :
       {std::pair<size_t, size_t>(0, 30), {30, 29}, {59, 1}}) {
    const MtpChunk chunks[] = {pairs(other.get(), begin / 2, 5),
                               pairs(pieces.get(), begin, size)};
    const std::vector<MtpResult> results = threaded.mtp().Step(chunks);
    logits.insert(logits.end(), results[1].logits.begin(),
                  results[1].logits.end());
    rows.insert(rows.end(), results[1].hidden.begin(), results[1].hidden.end());
  }
  EXPECT_TRUE(SameBits(logits, expected.logits));
  EXPECT_TRUE(SameBits(rows, expected.hidden));
}

// So long that attention has several spans.
TEST(LongPromptTest, HoweverItIsCut) {
  TestModel model(FixturePath("tiny_a_bf16"));
  const std::vector<int32_t> tokens =
      SomeTokens(1500, model.config().vocab_size);
  const auto [whole, whole_state] = model.RunInPieces(tokens, {1500});
  TestModel threaded(FixturePath("tiny_a_bf16"), {.threads = 3});
  const auto [pieces, state] = threaded.RunInPieces(tokens, {{1100, 399, 1}});
  EXPECT_TRUE(SameBits(pieces, whole));
  EXPECT_TRUE(
      SameBits(StateValues(state.get()), StateValues(whole_state.get())));
}

// 200,000 tokens that were read before are made up: reading them takes minutes.
TEST(LongPromptTest, FarFromItsBegin) {
  constexpr int64_t kBefore = 200'000, kTokens = 40;
  const TestModelOptions options = {.kv = KvDType::kI8};
  const auto far = [&](const TestModel& model) {
    std::unique_ptr<SequenceState> state = model.NewState(kBefore + kTokens);
    const StateShape& shape = state->shape();
    std::vector<float> row(static_cast<size_t>(shape.kv.head_dim));
    for (int i = 0; i < shape.num_full_layers; ++i) {
      const KvLayer kv = {state->pages(), shape.kv, i};
      for (int64_t t = 0; t < kBefore; ++t) {
        for (int64_t h = 0; h < shape.kv.num_kv_heads; ++h) {
          for (uint8_t* cached : {kv.KeyAt(t, h), kv.ValueAt(t, h)}) {
            row[t % shape.kv.head_dim] = static_cast<float>((t + h) % 13 - 6);
            kernels::EncodeKvRow(shape.kv.dtype, row.data(), shape.kv.head_dim,
                                 cached);
          }
        }
      }
    }
    state->num_tokens = kBefore;
    return state;
  };
  TestModel model(FixturePath("tiny_a_bf16"), options);
  const std::vector<int32_t> tokens =
      SomeTokens(kTokens, model.config().vocab_size);
  const auto whole = far(model);
  const std::vector<float> expected = model.Run(whole.get(), tokens);
  EXPECT_EQ(whole->num_tokens, kBefore + kTokens);
  for (const float logit : expected) ASSERT_TRUE(std::isfinite(logit));
  TestModelOptions threaded_options = options;
  threaded_options.threads = 3;
  TestModel threaded(FixturePath("tiny_a_bf16"), threaded_options);
  const auto pieces = far(threaded);
  std::vector<float> logits;
  for (const auto& [begin, size] :
       {std::pair<size_t, size_t>(0, 1), {1, 30}, {31, 8}, {39, 1}}) {
    const std::vector<float> rows = threaded.Run(
        pieces.get(), absl::MakeConstSpan(tokens).subspan(begin, size));
    logits.insert(logits.end(), rows.begin(), rows.end());
  }
  EXPECT_TRUE(SameBits(logits, expected));
}

}  // namespace
}  // namespace switchyard::attention_worker
