// The prefix cache in the step loop, with a model whose state gives away every
// token that was read twice, left out, or read into another state.

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/attention_worker/core/step_loop_rig.h"
#include "tests/testing/matchers.h"
#include "tests/testing/recording_sink.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::TokenRecord;

constexpr int64_t kVocab = StepLoopRig::kVocab;

Tokens Random(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  Tokens tokens(n);
  for (int32_t& token : tokens) {
    token = static_cast<int32_t>(random() % kVocab);
  }
  return tokens;
}

Tokens Join(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

enum class Drafts { kNone, kRight, kOftenWrong };

class PrefixCachingTest : public ::testing::TestWithParam<Drafts>,
                          protected StepLoopRig {
 protected:
  PrefixCachingTest()
      : StepLoopRig({.drafts = GetParam() == Drafts::kNone ? 0 : 3,
                     .wrong_draft =
                         [](int64_t position) {
                           return GetParam() == Drafts::kOftenWrong &&
                                  position % 5 < 2;
                         },
                     .max_model_len = 20000}) {
    Start();
  }

  std::shared_ptr<TokenRecord> Add(Tokens prompt, int64_t max_tokens,
                                   std::vector<int64_t> boundaries = {}) {
    GenerationRequest request = Request(std::move(prompt), max_tokens);
    request.cache_scope = scope_;
    request.prefix_boundaries = std::move(boundaries);
    return StepLoopRig::Add(std::move(request));
  }
  // Asks alone; checks the answer; how many tokens were computed for it.
  int64_t Computed(const Tokens& prompt, int64_t max_tokens, Tokens* answer,
                   std::vector<int64_t> boundaries = {}) {
    const int64_t before = TotalComputed();
    last_ = Add(prompt, max_tokens, std::move(boundaries));
    StepUntilEmpty();
    EXPECT_THAT(last_->status(), IsOk());
    EXPECT_EQ(last_->ids(), Expected(prompt, max_tokens));
    if (answer != nullptr) *answer = last_->ids();
    if (GetParam() != Drafts::kNone) return TotalComputed() - before;
    // Every token of the answer but the last is read too.
    return TotalComputed() - before - (max_tokens - 1);
  }
  int64_t TotalComputed() const {
    if (GetParam() != Drafts::kNone) return runner_.tokens_with_hidden();
    int64_t total = 0;
    for (const auto& step : runner_.steps()) {
      total = std::accumulate(step.begin(), step.end(), total);
    }
    return total;
  }
  std::shared_ptr<TokenRecord> last_;
  std::string scope_;  // of the requests
};

INSTANTIATE_TEST_SUITE_P(Drafts, PrefixCachingTest,
                         ::testing::Values(Drafts::kNone, Drafts::kRight,
                                           Drafts::kOftenWrong),
                         [](const auto& info) {
                           return info.param == Drafts::kNone    ? "None"
                                  : info.param == Drafts::kRight ? "Right"
                                                                 : "OftenWrong";
                         });

TEST_P(PrefixCachingTest, ATurnReadsOnlyWhatIsNew) {
  Tokens conversation = Random(1000, 1);
  int64_t computed = 0;
  int64_t fresh = 0;
  for (uint32_t turn = 0; turn < 10; ++turn) {
    Tokens answer;
    const int64_t cost = Computed(conversation, 40, &answer);
    if (turn > 0) {
      computed += cost;
      // The answer's last token was never read.
      fresh += 31;
      EXPECT_EQ(last_->usage().cached_prompt_tokens,
                static_cast<int64_t>(conversation.size()) - 31);
    }
    conversation = Join(Join(conversation, answer), Random(30, 100 + turn));
  }
  EXPECT_EQ(computed, fresh);
}

TEST_P(PrefixCachingTest, TheSamePromptTwiceReadsNothing) {
  for (const int64_t size : {1, 2, 63, 64, 65, 100, 1000, 10000}) {
    const Tokens prompt = Random(size, static_cast<uint32_t>(size));
    EXPECT_EQ(Computed(prompt, 5, nullptr), size);
    EXPECT_EQ(Computed(prompt, 5, nullptr), 0);
    EXPECT_EQ(last_->usage().cached_prompt_tokens, size);
  }
}

TEST_P(PrefixCachingTest, ASharedPrefixIsReadOnceWithBoundaries) {
  const Tokens prefix = Random(8000, 1);
  int64_t computed = 0;
  int64_t suffixes = 0;
  for (uint32_t i = 0; i < 20; ++i) {
    const Tokens suffix = Random(50 + 20 * i, 100 + i);
    computed += Computed(Join(prefix, suffix), 3, nullptr, {8000});
    suffixes += static_cast<int64_t>(suffix.size());
  }
  EXPECT_EQ(computed, 8000 + suffixes);
}

// Nobody says where the prefix ends: the second request shows it, and goes on
// from some way back.
TEST_P(PrefixCachingTest, ASharedPrefixIsFoundWithoutBoundaries) {
  const Tokens prefix = Random(8000, 1);
  int64_t computed = 0;
  int64_t suffixes = 0;
  for (uint32_t i = 0; i < 20; ++i) {
    const Tokens suffix = Random(50 + 20 * i, 100 + i);
    computed += Computed(Join(prefix, suffix), 3, nullptr);
    suffixes += static_cast<int64_t>(suffix.size());
  }
  EXPECT_LE(computed, 8000 + suffixes + 400);
}

TEST_P(PrefixCachingTest, SeveralAtOnceShareAndStayApart) {
  const Tokens prefix = Random(500, 1);
  Computed(prefix, 2, nullptr);
  std::vector<std::pair<Tokens, std::shared_ptr<TokenRecord>>> requests;
  for (uint32_t i = 0; i < 30; ++i) {
    Tokens prompt = Join(prefix, Random(i % 7, i));
    requests.emplace_back(prompt, Add(prompt, 90));
  }
  StepUntilEmpty();
  for (const auto& [prompt, record] : requests) {
    EXPECT_EQ(record->ids(), Expected(prompt, 90));
  }
}

TEST_P(PrefixCachingTest, AnAbortedPromptIsNotReadAgain) {
  const Tokens prompt = Random(2000, 1);
  Add(prompt, 5);
  loop_->Step({});
  loop_->Step({});
  loop_->Step({"0"});
  ASSERT_TRUE(loop_->empty());
  EXPECT_EQ(Computed(prompt, 5, nullptr), 2000 - 512);
}

TEST_P(PrefixCachingTest, ARequestForOneTokenOfAKeptPromptComputesNoStep) {
  const Tokens prompt = Random(100, 1);
  Computed(prompt, 1, nullptr);
  const size_t steps = runner_.steps().size();
  EXPECT_EQ(Computed(prompt, 1, nullptr), 0);
  EXPECT_EQ(runner_.steps().size(), steps);
}

TEST_P(PrefixCachingTest, FailedSequencesLeaveNothingBehind) {
  const Tokens prompt = Random(600, 1);
  int steps = 0;
  runner_.SetFault([&steps](const SequenceChunk&) {
    return ++steps == 2 ? absl::UnavailableError("gone") : absl::OkStatus();
  });
  const auto record = Add(prompt, 5);
  StepUntilEmpty();
  EXPECT_FALSE(record->status().ok());
  // Nothing of the torn state; the fake checks what it goes on from.
  Computed(prompt, 5, nullptr);
}

TEST_P(PrefixCachingTest, AnotherScopeReadsEverythingAgain) {
  const Tokens prompt = Random(1000, 1);
  for (const char* scope : {"", "a", "b"}) {
    scope_ = scope;
    EXPECT_EQ(Computed(prompt, 5, nullptr, {600}), 1000) << scope;
    EXPECT_EQ(last_->usage().cached_prompt_tokens, 0) << scope;
    // Nor does anybody see where paths part.
    const Tokens other =
        Join(Tokens(prompt.begin(), prompt.begin() + 600), Random(100, 2));
    EXPECT_EQ(Computed(other, 5, nullptr), 100) << scope;
    EXPECT_EQ(Computed(prompt, 5, nullptr), 0) << scope;
  }
  for (const char* scope : {"a", "", "b"}) {
    scope_ = scope;
    EXPECT_EQ(Computed(prompt, 5, nullptr), 0) << scope;
  }
}

TEST_P(PrefixCachingTest, OffMeansOff) {
  Start(int64_t{64} << 20, /*caching=*/false);
  const Tokens prompt = Random(300, 1);
  EXPECT_EQ(Computed(prompt, 5, nullptr), 300);
  EXPECT_EQ(Computed(prompt, 5, nullptr), 300);
  EXPECT_EQ(memory_->used_bytes(), 0);
}

// Memory for about two requests: everything that is kept is in the way of
// somebody sooner or later.
TEST_P(PrefixCachingTest, ThousandsOfAbortsUnderPressureLeaveNothing) {
  const StateCosts costs = runner_.state_shape().Costs();
  Start(3 * costs.BytesFor(600));
  std::mt19937 random(5);
  std::vector<std::pair<Tokens, std::shared_ptr<TokenRecord>>> finished;
  std::vector<std::pair<Tokens, std::shared_ptr<TokenRecord>>> live;
  for (int i = 0; i < 3000; ++i) {
    if (live.size() < 12 && random() % 3 != 0) {
      Tokens prompt = Random(random() % 400 + 1, random() % 5);
      if (random() % 2 == 0) {
        prompt = Join(prompt, Random(random() % 60, random()));
      }
      live.emplace_back(prompt, Add(prompt, 1 + random() % 30));
    }
    absl::flat_hash_set<std::string> cancelled;
    if (random() % 4 == 0) {
      cancelled.insert(std::to_string(next_id_ - 1 - random() % 12));
    }
    loop_->Step(cancelled);
    ASSERT_LE(memory_->used_bytes(), memory_->budget_bytes());
    std::erase_if(live, [&](const auto& request) {
      if (!request.second->done()) return false;
      const Tokens ids = request.second->ids();
      EXPECT_EQ(ids, Expected(request.first, static_cast<int64_t>(ids.size())));
      return true;
    });
  }
  StepUntilEmpty();
}

TEST_P(PrefixCachingTest, AfterARestartTheDiskHasIt) {
  const testing::TempDir directory;
  const auto restart = [&](int64_t state_bytes) {
    Stop();
    store_.reset();
    auto store = SnapshotStore::Open({.directory = directory.path(),
                                      .budget_bytes = int64_t{1} << 30,
                                      .model = "fake"},
                                     runner_.state_shape());
    ASSERT_THAT(store, IsOk());
    store_ = *std::move(store);
    Start(state_bytes);
  };
  restart(int64_t{64} << 20);
  const Tokens prefix = Random(1000, 1);
  Tokens answer;
  EXPECT_EQ(Computed(Join(prefix, Random(500, 2)), 40, &answer, {1000}), 1500);
  // Whatever ended and whatever was cut off is there.
  restart(int64_t{64} << 20);
  const Tokens next =
      Join(Join(Join(prefix, Random(500, 2)), answer), Random(30, 3));
  EXPECT_EQ(Computed(next, 20, nullptr, {1000}), 31);
  // So is the first message, for others; and short memory is no reason.
  restart(runner_.state_shape().Costs().BytesFor(3000) * 2);
  EXPECT_EQ(Computed(Join(prefix, Random(200, 4)), 20, nullptr, {1000}), 200);
  EXPECT_EQ(store_->stats().loaded, 1);
  // Nothing of it is another scope's.
  restart(int64_t{64} << 20);
  scope_ = "a";
  Tokens theirs;
  EXPECT_EQ(Computed(next, 20, &theirs, {1000}),
            static_cast<int64_t>(next.size()));
  restart(int64_t{64} << 20);
  EXPECT_EQ(Computed(Join(Join(next, theirs), Random(30, 5)), 20, nullptr), 31);
  EXPECT_EQ(store_->stats().loaded, 1);
  scope_ = "";
  // A damaged file costs time, no answer.
  Stop();
  for (const auto& file :
       std::filesystem::directory_iterator(directory.path())) {
    std::filesystem::resize_file(file.path(), 100);
  }
  Start();
  EXPECT_EQ(Computed(next, 20, nullptr, {1000}),
            static_cast<int64_t>(next.size()));
  EXPECT_GE(store_->stats().errors, 1);
  Stop();
  store_.reset();
}

}  // namespace
}  // namespace switchyard::attention_worker
