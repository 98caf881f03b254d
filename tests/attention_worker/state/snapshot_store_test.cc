#include "attention_worker/state/snapshot_store.h"

#include <sys/resource.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
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
  config.linear_conv_kernel_dim = 4;
  config.hidden_size = 8;
  return config;
}

Tokens Count(int64_t n, int32_t first = 0) {
  Tokens tokens(n);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

class SnapshotStoreTest : public ::testing::Test {
 protected:
  SnapshotStoreTest() {
    auto memory = StateMemory::Create(shape_, int64_t{8} << 20);
    EXPECT_THAT(memory, IsOk());
    memory_ = *std::move(memory);
  }

  std::unique_ptr<SnapshotStore> Open(int64_t budget = int64_t{1} << 30,
                                      const std::string& model = "model-a") {
    auto store = SnapshotStore::Open({.directory = directory_.File("states"),
                                      .budget_bytes = budget,
                                      .model = model},
                                     shape_);
    EXPECT_THAT(store, IsOk());
    return *std::move(store);
  }

  // Blocks full of numbers that follow from `seed`.
  StateSnapshot Make(int64_t tokens, float seed) {
    StateSnapshot snapshot;
    snapshot.num_tokens = tokens;
    snapshot.fixed = memory_->TryTakeFixed();
    std::iota(snapshot.fixed.get(), snapshot.fixed.get() + shape_.FixedFloats(),
              seed);
    for (int64_t i = 0; i < StateShape::PagesFor(tokens); ++i) {
      snapshot.pages.push_back(memory_->TryTakePage());
      std::iota(snapshot.pages.back().get(),
                snapshot.pages.back().get() + shape_.PageFloats(),
                seed + 1000 * static_cast<float>(i + 1));
    }
    return snapshot;
  }
  absl::StatusOr<StateSnapshot> Load(SnapshotStore* store, const Tokens& tokens,
                                     const std::string& scope = "") {
    return store->Load(
        {scope, tokens}, [this] { return memory_->TryTakeFixed(); },
        [this] { return memory_->TryTakePage(); });
  }
  bool SameBits(const StateSnapshot& a, const StateSnapshot& b) const {
    if (a.num_tokens != b.num_tokens || a.pages.size() != b.pages.size() ||
        !std::equal(a.fixed.get(), a.fixed.get() + shape_.FixedFloats(),
                    b.fixed.get())) {
      return false;
    }
    for (size_t i = 0; i < a.pages.size(); ++i) {
      if (!std::equal(a.pages[i].get(), a.pages[i].get() + shape_.PageFloats(),
                      b.pages[i].get())) {
        return false;
      }
    }
    return true;
  }
  static bool Flush(SnapshotStore* store) {
    return store->Flush(absl::Now() + absl::Seconds(60));
  }
  std::vector<std::string> Files() const {
    std::vector<std::string> files;
    for (const auto& file :
         std::filesystem::directory_iterator(directory_.File("states"))) {
      files.push_back(file.path().string());
    }
    return files;
  }

  const TempDir directory_;
  const StateShape shape_{Config()};
  std::unique_ptr<StateMemory> memory_;
};

TEST_F(SnapshotStoreTest, ComesBackAfterARestartBitForBit) {
  const StateSnapshot long_one = Make(200, 1), short_one = Make(64, 2);
  {
    const auto store = Open();
    EXPECT_EQ(store->LongestPrefix({"", Count(300)}), 0);
    store->SaveLater({"", Count(200)}, long_one);
    store->SaveLater({"", Count(64)}, short_one);
    store->SaveLater({"", Count(64)}, short_one);  // once is enough
    ASSERT_TRUE(Flush(store.get()));
    EXPECT_EQ(store->stats().saved, 2);
    EXPECT_EQ(store->LongestPrefix({"", Count(300)}), 200);
  }
  const auto store = Open();
  EXPECT_EQ(store->stats().files, 2);
  EXPECT_EQ(store->LongestPrefix({"", Count(300)}), 200);
  EXPECT_EQ(store->LongestPrefix({"", Count(199)}), 64);
  EXPECT_EQ(store->LongestPrefix({"", Count(63)}), 0);
  EXPECT_EQ(store->LongestPrefix({"", Count(300, 1)}), 0);
  auto loaded = Load(store.get(), Count(200));
  ASSERT_THAT(loaded, IsOk());
  EXPECT_TRUE(SameBits(*loaded, long_one));
  loaded = Load(store.get(), Count(64));
  ASSERT_THAT(loaded, IsOk());
  EXPECT_TRUE(SameBits(*loaded, short_one));
  EXPECT_EQ(store->stats().loaded, 2);
  EXPECT_THAT(Load(store.get(), Count(65)).status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no state")));
}

TEST_F(SnapshotStoreTest, TheLastPageIsCopiedAtOnce) {
  const StateSnapshot snapshot = Make(70, 1);
  const auto store = Open();
  store->SaveLater({"", Count(70)}, snapshot);
  // Its filler goes on.
  const float before = snapshot.pages.back().get()[0];
  snapshot.pages.back().get()[0] = -1;
  ASSERT_TRUE(Flush(store.get()));
  const auto loaded = Load(store.get(), Count(70));
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->pages.back().get()[0], before);
}

TEST_F(SnapshotStoreTest, WhatIsEvictedMeanwhileIsGivenUpWhole) {
  const auto store = Open();
  for (int32_t i = 0; i < 50; ++i) {
    StateSnapshot snapshot = Make(130, static_cast<float>(i));
    store->SaveLater({"", Count(130, i)}, snapshot);
    snapshot = {};
  }
  Flush(store.get());
  EXPECT_EQ(memory_->used_bytes(), 0);
  const SnapshotStore::Stats stats = store->stats();
  EXPECT_EQ(stats.saved + stats.dropped, 50);
  EXPECT_EQ(stats.errors, 0);
  EXPECT_THAT(Files(), SizeIs(stats.saved));
}

TEST_F(SnapshotStoreTest, TheLongestUnusedGoesFirst) {
  const StateSnapshot snapshot = Make(64, 1);
  int64_t size = 0;
  {
    const auto store = Open();
    store->SaveLater({"", Count(64)}, snapshot);
    ASSERT_TRUE(Flush(store.get()));
    size = store->stats().bytes;
  }
  const auto store = Open(3 * size);
  for (int32_t i = 1; i <= 2; ++i) {
    store->SaveLater({"", Count(64, i)}, snapshot);
    ASSERT_TRUE(Flush(store.get()));
  }
  ASSERT_THAT(Load(store.get(), Count(64)), IsOk());  // used again
  store->SaveLater({"", Count(64, 3)}, snapshot);
  ASSERT_TRUE(Flush(store.get()));
  EXPECT_EQ(store->LongestPrefix({"", Count(64, 0)}), 64);
  EXPECT_EQ(store->LongestPrefix({"", Count(64, 1)}), 0);
  EXPECT_EQ(store->LongestPrefix({"", Count(64, 2)}), 64);
  EXPECT_EQ(store->LongestPrefix({"", Count(64, 3)}), 64);
  EXPECT_LE(store->stats().bytes, 3 * size);
  EXPECT_THAT(Files(), SizeIs(3));
  // One that is larger than everything is not even begun.
  store->SaveLater({"", Count(640)}, Make(640, 1));
  EXPECT_EQ(store->stats().dropped, 1);
}

TEST_F(SnapshotStoreTest, DamageIsFoundAndRemoved) {
  const StateSnapshot snapshot = Make(100, 1);
  for (const int64_t at : {0, 9, 20, 60, 130, 3000, -1}) {
    const auto store = Open();
    store->SaveLater({"", Count(100)}, snapshot);
    ASSERT_TRUE(Flush(store.get()));
    ASSERT_THAT(Files(), SizeIs(1));
    auto bytes = ReadFile(Files()[0], 1 << 20);
    ASSERT_THAT(bytes, IsOk());
    char& byte = (*bytes)[at < 0 ? bytes->size() - 1 : at];
    byte = static_cast<char>(byte ^ 4);
    std::ofstream(Files()[0], std::ios::binary) << *bytes;
    EXPECT_FALSE(Load(store.get(), Count(100)).ok()) << at;
    EXPECT_THAT(Files(), IsEmpty()) << at;
    EXPECT_EQ(store->LongestPrefix({"", Count(100)}), 0);
    EXPECT_EQ(store->stats().errors, 1);
  }
}

TEST_F(SnapshotStoreTest, WhatCannotBeReadNowStays) {
  const StateSnapshot snapshot = Make(100, 1);
  const auto store = Open();
  store->SaveLater({"", Count(100)}, snapshot);
  ASSERT_TRUE(Flush(store.get()));
  rlimit limit;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  rlimit no_more_files = limit;
  no_more_files.rlim_cur = 0;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &no_more_files), 0);
  const auto refused = Load(store.get(), Count(100));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kUnavailable,
                                HasSubstr("Too many open files")));
  EXPECT_EQ(store->stats().errors, 1);
  EXPECT_EQ(store->LongestPrefix({"", Count(100)}), 100);
  const auto loaded = Load(store.get(), Count(100));
  ASSERT_THAT(loaded, IsOk());
  EXPECT_TRUE(SameBits(*loaded, snapshot));
}

TEST_F(SnapshotStoreTest, WhatSomebodyDeletedIsForgotten) {
  const auto store = Open();
  // It must live until it is saved.
  const StateSnapshot snapshot = Make(100, 1);
  store->SaveLater({"", Count(100)}, snapshot);
  ASSERT_TRUE(Flush(store.get()));
  std::filesystem::remove(Files().at(0));
  EXPECT_THAT(Load(store.get(), Count(100)),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_EQ(store->LongestPrefix({"", Count(100)}), 0);
  EXPECT_EQ(store->stats().files, 0);
}

TEST_F(SnapshotStoreTest, CutFilesAndLeftoversGoAtTheStart) {
  {
    const auto store = Open();
    store->SaveLater({"", Count(100)}, Make(100, 1));
    const StateSnapshot other = Make(101, 1);
    store->SaveLater({"", Count(101)}, other);
    Flush(store.get());
  }
  for (const std::string& file : Files()) {
    std::filesystem::resize_file(file, std::filesystem::file_size(file) - 1);
  }
  std::ofstream(directory_.File("states/0123456789abcdef-5.state.partial"))
      << "half";
  std::ofstream(directory_.File("states/0123456789abcdef-5.state")) << "none";
  std::ofstream(directory_.File("states/README")) << "not ours";
  const auto store = Open();
  EXPECT_EQ(store->stats().files, 0);
  EXPECT_THAT(Files(), SizeIs(1));
}

TEST_F(SnapshotStoreTest, AnotherModelsStatesAreNotTaken) {
  const StateSnapshot snapshot = Make(100, 1);
  int64_t size = 0;
  {
    const auto store = Open(int64_t{1} << 30, "model-b");
    store->SaveLater({"", Count(100)}, snapshot);
    ASSERT_TRUE(Flush(store.get()));
    size = store->stats().bytes;
  }
  const auto store = Open(size + size / 2);
  EXPECT_EQ(store->stats().files, 1);
  EXPECT_EQ(store->LongestPrefix({"", Count(100)}), 0);
  // Under the one budget they go like others.
  store->SaveLater({"", Count(90)}, Make(90, 1));
  const StateSnapshot own = Make(90, 2);
  store->SaveLater({"", Count(90, 1)}, own);
  ASSERT_TRUE(Flush(store.get()));
  EXPECT_THAT(Files(), SizeIs(1));
  EXPECT_EQ(store->LongestPrefix({"", Count(90, 1)}), 90);
}

TEST_F(SnapshotStoreTest, ScopesShareNothing) {
  const std::vector<std::string> scopes = {"", "mine", "theirs"};
  std::vector<StateSnapshot> snapshots;
  {
    const auto store = Open();
    for (size_t i = 0; i < scopes.size(); ++i) {
      EXPECT_EQ(store->LongestPrefix({scopes[i], Count(100)}), 0);
      snapshots.push_back(Make(100, static_cast<float>(i)));
      store->SaveLater({scopes[i], Count(100)}, snapshots.back());
      ASSERT_TRUE(Flush(store.get()));
    }
    EXPECT_THAT(Files(), SizeIs(3));
  }
  const auto store = Open();
  for (size_t i = 0; i < scopes.size(); ++i) {
    EXPECT_EQ(store->LongestPrefix({scopes[i], Count(120)}), 100);
    const auto loaded = Load(store.get(), Count(100), scopes[i]);
    ASSERT_THAT(loaded, IsOk());
    EXPECT_TRUE(SameBits(*loaded, snapshots[i])) << i;
  }
  EXPECT_EQ(store->LongestPrefix({"nobody", Count(120)}), 0);
  EXPECT_THAT(Load(store.get(), Count(100), "nobody"),
              StatusIs(absl::StatusCode::kNotFound));
}

// Whoever gives a file the name of another scope's finds out.
TEST_F(SnapshotStoreTest, AFileUnderAnotherScopesNameIsNotTaken) {
  const auto store = Open();
  const StateSnapshot secret = Make(100, 1), own = Make(100, 2);
  store->SaveLater({"secret", Count(100)}, secret);
  ASSERT_TRUE(Flush(store.get()));
  const std::string theirs = Files().at(0);
  store->SaveLater({"mine", Count(100)}, own);
  ASSERT_TRUE(Flush(store.get()));
  for (const std::string& file : Files()) {
    if (file == theirs) continue;
    std::filesystem::copy_file(
        theirs, file, std::filesystem::copy_options::overwrite_existing);
  }
  EXPECT_THAT(Load(store.get(), Count(100), "mine"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("another scope")));
  EXPECT_THAT(Load(store.get(), Count(100), "secret"), IsOk());
}

// Builds from before there were scopes read what has none, and refuse the rest.
TEST_F(SnapshotStoreTest, OnlyAScopeChangesTheFormat) {
  const SnapshotIdentity identity{.model = "m", .layout = "l"};
  const Tokens tokens = {7};
  const std::string json = R"({"model":"m","layout":"l","tokens":1})";
  EXPECT_EQ(SnapshotPreamble(identity, {"", tokens}),
            "SYSTATE1" + std::string(1, static_cast<char>(json.size())) +
                std::string(3, '\0') + json + "\7" + std::string(3, '\0'));
  EXPECT_EQ(SnapshotPreamble(identity, {"s", tokens}).substr(0, 8), "SYSTATE2");
  EXPECT_THAT(ParseSnapshotJson("it", "SYSTATE2", json),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("scope")));
}

TEST_F(SnapshotStoreTest, SaysWhatTheFileIsOf) {
  const std::string path = directory_.File("a.state");
  const StateSnapshot snapshot = Make(5, 1);
  auto writer = SnapshotWriter::Create(
      path, {.model = "b", .layout = LayoutOf(shape_)}, {"", Count(5)});
  ASSERT_THAT(writer, IsOk());
  ASSERT_THAT((*writer)->Append(snapshot.fixed.get(), shape_.FixedBytes()),
              IsOk());
  ASSERT_THAT((*writer)->Append(snapshot.pages[0].get(), shape_.PageBytes()),
              IsOk());
  ASSERT_THAT((*writer)->Finish(), IsOk());
  const auto read = [&](const std::string& model, const Tokens& tokens,
                        const std::string& scope = "") {
    return ReadSnapshot(
               path, {.model = model, .layout = LayoutOf(shape_)}, shape_,
               {scope, tokens}, [this] { return memory_->TryTakeFixed(); },
               [this] { return memory_->TryTakePage(); })
        .status();
  };
  EXPECT_THAT(read("b", Count(5)), IsOk());
  EXPECT_THAT(read("a", Count(5)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("is of model b"),
                             HasSubstr("this worker has model a"))));
  EXPECT_THAT(read("b", Count(5), "mine"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("another scope")));
  EXPECT_THAT(read("b", Count(5, 1)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("other tokens")));
  EXPECT_THAT(read("b", Count(4)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("other tokens")));
  // An abandoned one leaves nothing.
  *writer = nullptr;
  { auto half = SnapshotWriter::Create(path + "2", {}, {"", Count(5)}); }
  EXPECT_FALSE(std::filesystem::exists(path + "2"));
  EXPECT_FALSE(std::filesystem::exists(path + "2.partial"));
}

TEST_F(SnapshotStoreTest, ADirectoryThatCannotBe) {
  std::ofstream(directory_.File("file")) << "x";
  EXPECT_THAT(
      SnapshotStore::Open({.directory = directory_.File("file/states"),
                           .budget_bytes = 1,
                           .model = "m"},
                          shape_)
          .status(),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr("file/states")));
  EXPECT_THAT(
      SnapshotStore::Open({.directory = "x", .budget_bytes = 0, .model = "m"},
                          shape_)
          .status(),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("budget")));
}

}  // namespace
}  // namespace switchyard::attention_worker
