// Attention over pages against its definition in double; and that its bits do
// not depend on cuts, threads or instruction sets.

#include "attention_worker/layers/paged_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "attention_worker/layers/layer_context.h"
#include "base/aligned_buffer.h"
#include "base/compute_pool.h"
#include "gtest/gtest.h"
#include "kernels/kernel_table.h"
#include "tests/attention_worker/layers/test_model.h"

namespace switchyard::attention_worker {
namespace {

using kernels::KvDType;

constexpr int kHeads = 6, kKvHeads = 2, kGroup = kHeads / kKvHeads;
constexpr int64_t kDim = 40;
// Three spans, the last one short; and pages beyond, for cuts.
constexpr int64_t kTokens = 1100;

std::vector<float> RandomFloats(int64_t n, uint32_t seed, float deviation) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = normal(rng);
  return values;
}

// A sequence of kTokens tokens in layer 1 of 2.
class PagedAttentionTest : public ::testing::TestWithParam<KvDType> {
 protected:
  PagedAttentionTest() {
    config_.num_attention_heads = kHeads;
    config_.num_key_value_heads = kKvHeads;
    config_.head_dim = kDim;
    layout_ = {GetParam(), kKvHeads, kDim};
    const int64_t page_floats =
        2 * layout_.LayerBytes() / static_cast<int64_t>(sizeof(float));
    for (int64_t p = 0; p * kPageTokens < kTokens; ++p) {
      memory_.emplace_back(page_floats);
      pages_.push_back(memory_.back().data());
    }
    kv_ = {pages_, layout_, /*layer=*/1};
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t h = 0; h < kKvHeads; ++h) {
        const auto seed = static_cast<uint32_t>(4 * t + 2 * h);
        // Keys grow, so that later spans have the greater maximum, and then
        // shrink.
        const float size = t < 800 ? 0.5f + static_cast<float>(t) / 400 : 0.5f;
        kernels::EncodeKvRow(GetParam(), RandomFloats(kDim, seed, size).data(),
                             kDim, kv_.KeyAt(t, h));
        kernels::EncodeKvRow(GetParam(), RandomFloats(kDim, seed + 1, 1).data(),
                             kDim, kv_.ValueAt(t, h));
      }
    }
  }

  // Of the token at `position`: [kHeads, kDim].
  static std::vector<float> QueryOf(int64_t position) {
    return RandomFloats(kHeads * kDim,
                        static_cast<uint32_t>(1'000'000 + position), 1);
  }

  struct Chunk {
    int64_t first_position;
    int64_t num_rows;
  };
  // The outputs [rows, kHeads, kDim] of some chunks of the sequence as so many
  // sequences of one call.
  std::vector<float> Run(absl::Span<const Chunk> chunks, int threads,
                         const kernels::KernelTable& table) {
    const std::unique_ptr<ComputePool> pool = NewThreadPool(threads, "test");
    Scratch scratch;
    LayerContext context;
    context.config = &config_;
    context.kernels = &table;
    context.pool = pool.get();
    context.scratch = &scratch;
    std::vector<LayerSequence> sequences;
    int64_t rows = 0;
    for (const Chunk& chunk : chunks) {
      LayerSequence sequence;
      sequence.first_row = rows;
      sequence.num_rows = chunk.num_rows;
      sequence.first_position = chunk.first_position;
      sequence.kv = kv_;
      sequences.push_back(sequence);
      rows += chunk.num_rows;
    }
    std::vector<float> queries(static_cast<size_t>(rows * kHeads * kDim));
    for (const LayerSequence& sequence : sequences) {
      for (int64_t t = 0; t < sequence.num_rows; ++t) {
        const std::vector<float> query = QueryOf(sequence.first_position + t);
        for (int64_t h = 0; h < kHeads; ++h) {
          const int64_t row = sequence.first_row + t;
          std::copy_n(
              query.data() + h * kDim, kDim,
              queries.data() +
                  ((h / kGroup * rows + row) * kGroup + h % kGroup) * kDim);
        }
      }
    }
    std::vector<float> outputs(queries.size());
    PagedAttention(context, sequences, rows, queries.data(), outputs.data());
    return outputs;
  }
  std::vector<float> Run(absl::Span<const Chunk> chunks, int threads = 1) {
    return Run(chunks, threads, kernels::Kernels());
  }

  model::ModelConfig config_;
  KvLayout layout_;
  std::vector<AlignedBuffer> memory_;
  std::vector<float*> pages_;
  KvLayer kv_;
};

INSTANTIATE_TEST_SUITE_P(DTypes, PagedAttentionTest,
                         ::testing::Values(KvDType::kF32, KvDType::kBF16,
                                           KvDType::kI8),
                         [](const ::testing::TestParamInfo<KvDType>& info) {
                           return std::string(
                               info.param == KvDType::kF32    ? "f32"
                               : info.param == KvDType::kBF16 ? "bf16"
                                                              : "i8");
                         });

TEST_P(PagedAttentionTest, IsTheDefinition) {
  const std::vector<float> keys = CachedKeys(kv_, kTokens);
  const std::vector<float> values = CachedValues(kv_, kTokens);
  const std::vector<float> outputs = Run({{{0, kTokens}}});
  for (const int64_t t : {0, 1, 63, 64, 511, 512, 513, 800, 1023, 1024, 1099}) {
    const std::vector<float> query = QueryOf(t);
    for (int64_t h = 0; h < kHeads; ++h) {
      const auto row_of = [&](int64_t j) {
        return (j * kKvHeads + h / kGroup) * kDim;
      };
      std::vector<double> weights;
      for (int64_t j = 0; j <= t; ++j) {
        double dot = 0;
        for (int64_t i = 0; i < kDim; ++i) {
          dot += static_cast<double>(query[h * kDim + i]) * keys[row_of(j) + i];
        }
        weights.push_back(dot / std::sqrt(static_cast<double>(kDim)));
      }
      const double max = *std::max_element(weights.begin(), weights.end());
      double total = 0;
      std::vector<double> expected(kDim);
      for (int64_t j = 0; j <= t; ++j) {
        const double weight = std::exp(weights[j] - max);
        total += weight;
        for (int64_t i = 0; i < kDim; ++i) {
          expected[i] += weight * values[row_of(j) + i];
        }
      }
      for (int64_t i = 0; i < kDim; ++i) {
        const double error = std::abs(outputs[(t * kHeads + h) * kDim + i] -
                                      expected[i] / total);
        EXPECT_LE(error, 2e-5) << "token " << t << ", head " << h;
      }
    }
  }
}

TEST_P(PagedAttentionTest, BitsHoweverItIsCut) {
  const std::vector<float> whole = Run({{{0, kTokens}}});
  const std::vector<std::vector<Chunk>> cuts = {
      {{0, 511}, {511, 2}, {513, kTokens - 513}},
      {{0, 3}, {3, 517}, {520, 576}, {1096, 3}, {1099, 1}},
  };
  for (const std::vector<Chunk>& chunks : cuts) {
    for (const int threads : {1, 3}) {
      EXPECT_TRUE(SameBits(Run(chunks, threads), whole)) << threads;
    }
  }
  // Alone, when a token's spans are computed apart, and in few rows.
  for (const auto& [first, n] :
       {Chunk{0, 1}, {511, 1}, {512, 1}, {1099, 1}, {1095, 5}, {1020, 8}}) {
    const Chunk chunk[] = {{first, n}};
    for (const int threads : {1, 3}) {
      EXPECT_TRUE(SameBits(Run(chunk, threads),
                           absl::MakeConstSpan(whole).subspan(
                               first * kHeads * kDim, n * kHeads * kDim)))
          << first << " on " << threads;
    }
  }
}

TEST_P(PagedAttentionTest, BitsOnEveryInstructionSet) {
  const Chunk chunks[] = {{500, 30}, {1099, 1}};
  const std::vector<float> expected =
      Run(chunks, /*threads=*/1, kernels::kScalarKernels);
  for (const kernels::KernelTable* table : kernels::AvailableKernels()) {
    EXPECT_TRUE(SameBits(Run(chunks, /*threads=*/2, *table), expected))
        << table->name;
  }
}

// Nothing of a token's future reaches it, though it is computed with.
TEST_P(PagedAttentionTest, TheFutureDoesNotReachBack) {
  const std::vector<float> before = Run({{{0, kTokens}}});
  const std::vector<float> bad(kDim, std::numeric_limits<float>::quiet_NaN());
  constexpr int64_t kBad = 521;
  for (int64_t h = 0; h < kKvHeads; ++h) {
    kernels::EncodeKvRow(GetParam(), bad.data(), kDim, kv_.KeyAt(kBad, h));
    kernels::EncodeKvRow(GetParam(), bad.data(), kDim, kv_.ValueAt(kBad, h));
  }
  const std::vector<float> after = Run({{{0, kTokens}}});
  constexpr int64_t kUntouched = kBad * kHeads * kDim;
  EXPECT_TRUE(SameBits(absl::MakeConstSpan(after).first(kUntouched),
                       absl::MakeConstSpan(before).first(kUntouched)));
  for (size_t i = kUntouched; i < after.size(); ++i) {
    ASSERT_TRUE(std::isnan(after[i])) << i;
  }
}

}  // namespace
}  // namespace switchyard::attention_worker
