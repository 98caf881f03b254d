#include "attention_worker/state/prefix_cache.h"

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/config.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using Tokens = std::vector<int32_t>;

model::ModelConfig Config() {
  model::ModelConfig config;
  config.layer_types = {model::LayerType::kLinearAttention,
                        model::LayerType::kFullAttention};
  config.num_key_value_heads = 1;
  config.head_dim = 4;
  config.linear_num_key_heads = 1;
  config.linear_num_value_heads = 1;
  config.linear_key_head_dim = 4;
  config.linear_value_head_dim = 4;
  config.linear_conv_kernel_dim = 1;
  return config;
}

class PrefixCacheTest : public ::testing::Test {
 protected:
  PrefixCacheTest() {
    auto memory = StateMemory::Create(shape_, int64_t{64} << 20);
    EXPECT_THAT(memory, IsOk());
    memory_ = *std::move(memory);
    cache_ = std::make_unique<PrefixCache>(shape_);
  }

  // A snapshot that can be told from others by `mark`.
  StateSnapshot Snapshot(int64_t tokens, float mark = 0) {
    auto state = SequenceState::TryCreate(memory_.get(), tokens);
    EXPECT_TRUE(state->TryGrow(tokens));
    state->num_tokens = tokens;
    state->recurrent(0)[0] = mark;
    return std::move(*state).IntoSnapshot();
  }
  void Insert(const Tokens& tokens, float mark = 0) {
    cache_->Insert({"", tokens},
                   Snapshot(static_cast<int64_t>(tokens.size()), mark));
  }
  int64_t Found(const Tokens& tokens) {
    return cache_->Find({"", tokens}).snapshot.num_tokens;
  }
  int64_t Common(const Tokens& tokens) {
    return cache_->Find({"", tokens}).common_tokens;
  }

  const StateShape shape_{Config()};
  std::unique_ptr<StateMemory> memory_;
  std::unique_ptr<PrefixCache> cache_;
};

Tokens Range(int32_t begin, int32_t end) {
  Tokens tokens;
  for (int32_t t = begin; t < end; ++t) tokens.push_back(t);
  return tokens;
}

Tokens Join(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST_F(PrefixCacheTest, FindsTheLongestKeptPrefix) {
  EXPECT_EQ(Found({1, 2, 3}), 0);
  Insert({1, 2});
  Insert({1, 2, 3, 4});
  EXPECT_EQ(Found({1}), 0);
  EXPECT_EQ(Found({1, 2}), 2);
  EXPECT_EQ(Found({1, 2, 3}), 2);
  EXPECT_EQ(Found({1, 2, 3, 4}), 4);
  EXPECT_EQ(Found({1, 2, 3, 4, 5}), 4);
  EXPECT_EQ(Found({1, 2, 9}), 2);
  EXPECT_EQ(Found({2, 1}), 0);
  EXPECT_TRUE(cache_->Contains({"", Tokens{1, 2}}));
  EXPECT_FALSE(cache_->Contains({"", Tokens{1, 2, 3}}));
}

TEST_F(PrefixCacheTest, SaysWherePathsPart) {
  Insert(Join(Range(0, 100), Range(500, 510)));
  const Tokens other = Join(Range(0, 100), Range(600, 610));
  EXPECT_EQ(Found(other), 0);
  EXPECT_EQ(Common(other), 100);
  Insert(other);
  EXPECT_EQ(Common(Join(Range(0, 100), {1})), 100);
  Insert(Range(0, 100));
  EXPECT_EQ(Found(Join(Range(0, 100), {1})), 100);
  // Both ends are still there.
  EXPECT_EQ(Found(other), 110);
}

TEST_F(PrefixCacheTest, ASecondSnapshotOfTheSameTokensIsDropped) {
  Insert({1, 2, 3}, 1);
  Insert({1, 2, 3}, 2);
  EXPECT_EQ(cache_->num_snapshots(), 1);
  const auto match = cache_->Find({"", Tokens{1, 2, 3}});
  EXPECT_EQ(match.snapshot.fixed.get()[0], 1);
}

TEST_F(PrefixCacheTest, ScopesShareNothing) {
  const auto find = [this](const char* scope, const Tokens& tokens) {
    return cache_->Find({scope, tokens});
  };
  cache_->Insert({"a", Range(0, 10)}, Snapshot(10, 1));
  EXPECT_EQ(find("a", Range(0, 12)).snapshot.num_tokens, 10);
  for (const char* other : {"", "b", "aa"}) {
    EXPECT_EQ(find(other, Range(0, 12)).snapshot.num_tokens, 0) << other;
    EXPECT_EQ(find(other, Range(0, 12)).common_tokens, 0) << other;
    EXPECT_FALSE(cache_->Contains({other, Range(0, 10)})) << other;
  }
  cache_->Insert({"", Range(0, 10)}, Snapshot(10, 2));
  cache_->Insert({"b", Range(0, 5)}, Snapshot(5, 3));
  EXPECT_EQ(cache_->num_snapshots(), 3);
  EXPECT_EQ(find("a", Range(0, 12)).snapshot.fixed.get()[0], 1);
  EXPECT_EQ(find("", Range(0, 12)).snapshot.fixed.get()[0], 2);
  EXPECT_EQ(find("b", Range(0, 12)).snapshot.fixed.get()[0], 3);
}

TEST_F(PrefixCacheTest, ScopesShareOneBudget) {
  for (int i = 0; i < 50; ++i) {
    const std::string scope = std::to_string(i);
    cache_->Insert({scope, Range(0, 10 + i)}, Snapshot(10 + i));
  }
  // The least valuable first, whosever it is: all of them take one page.
  for (int i = 0; i < 50; ++i) {
    const std::string scope = std::to_string(i);
    EXPECT_TRUE(cache_->Contains({scope, Range(0, 10 + i)}));
    EXPECT_TRUE(cache_->EvictOne());
    EXPECT_FALSE(cache_->Contains({scope, Range(0, 10 + i)}));
  }
  EXPECT_FALSE(cache_->EvictOne());
  EXPECT_EQ(memory_->used_bytes(), 0);
  cache_->Insert({"7", Range(0, 10)}, Snapshot(10));
  EXPECT_TRUE(cache_->Contains({"7", Range(0, 10)}));
}

TEST_F(PrefixCacheTest, EvictsWhatSavesLeastForItsBytes) {
  Insert(Range(0, 1000));
  Insert(Range(5000, 5010));  // the same fixed part for ten tokens
  Insert(Range(0, 1010));     // ten more than another that is kept
  EXPECT_TRUE(cache_->EvictOne());
  EXPECT_TRUE(cache_->EvictOne());
  EXPECT_EQ(Found(Range(0, 1010)), 1000);
  EXPECT_EQ(Found(Range(5000, 5010)), 0);
  EXPECT_TRUE(cache_->EvictOne());
  EXPECT_FALSE(cache_->EvictOne());
  EXPECT_EQ(cache_->num_snapshots(), 0);
  EXPECT_EQ(memory_->used_bytes(), 0);
}

TEST_F(PrefixCacheTest, UseKeepsASnapshotAlive) {
  for (int32_t i = 0; i < 8; ++i) Insert(Range(1000 * i, 1000 * i + 100));
  for (int round = 0; round < 7; ++round) {
    EXPECT_EQ(Found(Range(3000, 3100)), 100);
    EXPECT_TRUE(cache_->EvictOne());
  }
  EXPECT_EQ(Found(Range(3000, 3100)), 100);
}

TEST_F(PrefixCacheTest, OldValueFadesWhenItIsNotUsed) {
  Insert(Range(0, 200));  // worth twice as much as any of the others
  for (int32_t i = 1; i < 200; ++i) {
    Insert(Range(1000 * i, 1000 * i + 100));
    if (cache_->num_snapshots() > 4) {
      EXPECT_TRUE(cache_->EvictOne());
    }
  }
  EXPECT_EQ(Found(Range(0, 200)), 0);
}

// Random inserts, finds and evictions against a map of everything that is kept.
TEST_F(PrefixCacheTest, AgreesWithAMap) {
  std::mt19937 random(3);
  for (int round = 0; round < 20; ++round) {
    cache_ = std::make_unique<PrefixCache>(shape_);
    std::map<Tokens, float> kept;
    for (int step = 0; step < 300; ++step) {
      Tokens tokens(1 + random() % 12);
      for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 3);
      const float mark = static_cast<float>(step);
      if (random() % 2 == 0) {
        Insert(tokens, mark);
        kept.emplace(tokens, mark);
      } else if (random() % 4 == 0 && !kept.empty()) {
        ASSERT_TRUE(cache_->EvictOne());
        int64_t gone = 0;
        for (auto it = kept.begin(); it != kept.end();) {
          if (cache_->Contains({"", it->first})) {
            ++it;
          } else {
            it = kept.erase(it);
            ++gone;
          }
        }
        ASSERT_EQ(gone, 1);
      }
      ASSERT_EQ(cache_->num_snapshots(), static_cast<int64_t>(kept.size()));
      Tokens expected;
      for (size_t n = tokens.size(); n > 0 && expected.empty(); --n) {
        const Tokens prefix(tokens.begin(), tokens.begin() + n);
        if (kept.contains(prefix)) expected = prefix;
      }
      const PrefixCache::Match match = cache_->Find({"", tokens});
      ASSERT_EQ(match.snapshot.num_tokens,
                static_cast<int64_t>(expected.size()));
      ASSERT_GE(match.common_tokens, match.snapshot.num_tokens);
      if (!expected.empty()) {
        ASSERT_EQ(match.snapshot.fixed.get()[0], kept.at(expected));
      }
    }
  }
  cache_.reset();
  EXPECT_EQ(memory_->used_bytes(), 0);
}

TEST_F(PrefixCacheTest, DeepPathsNeedNoDeepStack) {
  Tokens tokens;
  for (int32_t i = 0; i < 20000; ++i) {
    tokens.push_back(i);
    if (i % 4 == 0) {
      StateSnapshot snapshot;
      snapshot.num_tokens = i + 1;
      snapshot.fixed = memory_->TryTakeFixed();
      cache_->Insert({"", tokens}, std::move(snapshot));
    }
  }
  EXPECT_EQ(Found(tokens), 19997);
  cache_.reset();
  EXPECT_EQ(memory_->used_bytes(), 0);
}

}  // namespace
}  // namespace switchyard::attention_worker
