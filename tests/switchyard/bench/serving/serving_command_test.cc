// The books of `bench serving` on a small random checkpoint: what is counted
// is exact. No test here compares times.

#include "switchyard/bench/serving/serving_command.h"

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard {
namespace {

using ::switchyard::testing::FixturePath;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::RandomCheckpointOptions;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::switchyard::testing::WriteRandomCheckpoint;
using ::testing::AllOf;
using ::testing::HasSubstr;

class BenchServingTest : public ::testing::Test {
 protected:
  BenchServingTest() {
    options_.model_dir = FixturePath("tiny_a_bf16");
    options_.threads = 2;
    options_.json_path = directory_.File("serving.json");
    options_.conversation = {.first_tokens = 70,
                             .turn_tokens = 20,
                             .answer_tokens = 3,
                             .turns = 4,
                             .repeat = 2,
                             .prefill_chunk = 32};
    options_.prefix = {.prefix_tokens = 96,
                       .suffix_tokens = 40,
                       .suffixes = 5,
                       .prefill_chunk = 64};
    options_.drafts.batches = {1, 2};
    options_.drafts.max_depth = 2;
    options_.drafts.answer_tokens = 12;
    options_.drafts.measured_tokens = 24;
    options_.drafts.repeat = 2;
    options_.concurrency = {.streams = {1, 3},
                            .prompt_tokens = 10,
                            .answer_tokens = 5,
                            .waves = 2,
                            .prefill_chunk = 16};
    options_.stall = {.chunks = {8, 32},
                      .streams = 2,
                      .prompt_tokens = 4,
                      .long_tokens = 96,
                      .alone_tokens = 6};
    options_.mixed.sessions = 30;
    options_.mixed.users = 4;
    options_.mixed.most_turns = 3;
    options_.mixed.most_turn_tokens = 20;
    options_.mixed.most_answer_tokens = 8;
  }

  Json Run(std::vector<std::string> only) {
    options_.only = std::move(only);
    EXPECT_THAT(RunBenchServing(options_, out_), IsOk());
    const auto text = ReadFile(options_.json_path, 1 << 20);
    EXPECT_THAT(text.status(), IsOk());
    if (!text.ok()) return Json();
    const auto json = ParseJson(*text);
    EXPECT_THAT(json.status(), IsOk());
    return json.ok() ? *json : Json();
  }

  const TempDir directory_;
  BenchServingOptions options_;
  std::ostringstream out_;
};

TEST_F(BenchServingTest, AConversationReadsWhatIsNew) {
  const Json json = Run({"conversation"});
  const Json& turns = json["conversation"]["turns"];
  ASSERT_EQ(turns.size(), 4u);
  EXPECT_EQ(turns[0]["prompt_tokens"], 70);
  EXPECT_EQ(turns[0]["computed_tokens"], 70);
  EXPECT_EQ(turns[0]["cached_tokens"], 0);
  for (size_t t = 1; t < turns.size(); ++t) {
    const int64_t prompt = 70 + static_cast<int64_t>(t) * (3 + 20);
    EXPECT_EQ(turns[t]["prompt_tokens"], prompt);
    EXPECT_EQ(turns[t]["new_tokens"], 20);
    // An answer's last token was never read.
    EXPECT_EQ(turns[t]["computed_tokens"], 21);
    EXPECT_EQ(turns[t]["cached_tokens"], prompt - 21);
    EXPECT_GT(turns[t]["ttft_seconds"], 0.0);
  }
  EXPECT_DOUBLE_EQ(json["conversation"]["computed_per_new"], 21.0 / 20);
  EXPECT_GT(json["conversation"]["second_turn_share"], 0.0);
  ASSERT_EQ(json["bars"].size(), 2u);
  EXPECT_EQ(json["bars"][0]["met"], true);
  EXPECT_FALSE(json.contains("mixed"));
}

TEST_F(BenchServingTest, ASharedPrefixIsReadOnceWhereItsEndIsGiven) {
  const Json json = Run({"prefix"});
  ASSERT_EQ(json["prefix"].size(), 2u);
  const Json& given = json["prefix"][0];
  EXPECT_EQ(given["boundary"], true);
  EXPECT_EQ(given["least_tokens"], 96 + 5 * 40);
  EXPECT_EQ(given["computed_tokens"], 96 + 5 * 40);
  EXPECT_EQ(given["cached_tokens"], 4 * 96);
  // Else the second prompt finds where both part, and the third begins there.
  const Json& not_given = json["prefix"][1];
  EXPECT_EQ(not_given["boundary"], false);
  EXPECT_EQ(not_given["computed_tokens"], 2 * 96 + 5 * 40);
  EXPECT_EQ(not_given["cached_tokens"], 3 * 96);
  EXPECT_THAT(out_.str(), HasSubstr("MISSED prefix, no boundary"));
}

TEST_F(BenchServingTest, ConcurrencyCountsEveryToken) {
  const Json json = Run({"concurrency"});
  const Json& all = json["concurrency"];
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0]["streams"], 1);
  EXPECT_EQ(all[0]["output_tokens"], 2 * 5);
  EXPECT_EQ(all[1]["streams"], 3);
  EXPECT_EQ(all[1]["output_tokens"], 2 * 3 * 5);
  for (const Json& m : all) {
    EXPECT_GT(m["tokens_per_second"], 0.0);
    for (const char* what : {"inter_token_seconds", "first_token_seconds"}) {
      EXPECT_GT(m[what]["p50"], 0.0);
      EXPECT_LE(m[what]["p50"], m[what]["p99"]);
      EXPECT_LE(m[what]["p99"], m[what]["max"]);
    }
  }
}

TEST_F(BenchServingTest, StreamsGetATokenInEveryStepOfALongPrompt) {
  const Json json = Run({"stall"});
  const Json& all = json["stall"];
  ASSERT_EQ(all.size(), 2u);
  const int64_t chunks[] = {8, 32};
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i]["chunk"], chunks[i]);
    EXPECT_EQ(all[i]["long_tokens"], 96);
    // Each of two streams, in each of the prompt's steps; the step that was
    // computed when it came may count, too.
    const int64_t steps = 96 / chunks[i];
    EXPECT_GE(all[i]["gaps_beside"], 2 * (steps - 1));
    EXPECT_LE(all[i]["gaps_beside"], 2 * (steps + 2));
    EXPECT_GT(all[i]["alone_seconds"]["p99"], 0.0);
    EXPECT_GT(all[i]["beside_seconds"]["p99"], 0.0);
  }
}

TEST_F(BenchServingTest, MixedSessionsGiveEverythingBack) {
  const Json json = Run({"mixed"});
  const Json& mixed = json["mixed"];
  EXPECT_EQ(mixed["sessions"], 30);
  EXPECT_GE(mixed["requests"], 30);
  EXPECT_LE(mixed["requests"], 90);
  EXPECT_GT(mixed["state_held_peak_bytes"], 0);
  EXPECT_LE(mixed["state_held_peak_bytes"], mixed["state_budget_bytes"]);
  EXPECT_GT(mixed["resident_warm_bytes"], 0);
}

TEST_F(BenchServingTest, DraftsNeedAHead) {
  RandomCheckpointOptions checkpoint;
  checkpoint.with_mtp = false;
  options_.model_dir = directory_.File("headless");
  ASSERT_THAT(WriteRandomCheckpoint(checkpoint, options_.model_dir), IsOk());
  options_.only = {"drafts"};
  const absl::Status status = RunBenchServing(options_, out_);
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("headless"), HasSubstr("no MTP head"))));
}

TEST_F(BenchServingTest, EveryModeOfDraftingIsMeasuredAtEveryBatch) {
  const Json json = Run({"drafts"});
  const Json& all = json["drafts"]["measurements"];
  EXPECT_EQ(json["drafts"]["own_prompts"], false);
  const std::vector<std::string> modes = {"plain", "fixed 1", "fixed 2",
                                          "adaptive"};
  ASSERT_EQ(all.size(), 2 * modes.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const Json& m = all[i];
    EXPECT_EQ(m["mode"], modes[i % modes.size()]);
    EXPECT_EQ(m["batch"], i < modes.size() ? 1 : 2);
    EXPECT_GT(m["tokens_per_second"], 0.0);
    EXPECT_GT(m["to_plain"]["min"], 0.0);
    EXPECT_LE(m["to_plain"]["min"], m["to_plain"]["median"]);
    EXPECT_LE(m["to_plain"]["median"], m["to_plain"]["max"]);
    if (m["mode"] == "plain") {
      EXPECT_EQ(m["tokens_per_step"], 1.0);
      EXPECT_EQ(m["drafted_per_step"], 0.0);
      EXPECT_EQ(m["to_plain"]["median"], 1.0);
    }
    if (m["mode"] == "fixed 1" || m["mode"] == "fixed 2") {
      EXPECT_GT(m["drafted_per_step"], 0.5);
      EXPECT_LE(m["drafted_per_step"], m["depth"]);
      EXPECT_GE(m["tokens_per_step"], 1.0);
      EXPECT_LE(m["tokens_per_step"],
                1.0 + m["drafted_per_step"].get<double>());
    }
  }
}

TEST_F(BenchServingTest, WhatCannotBeIsRefusedFirst) {
  const auto refused = [this](auto change, const char* why) {
    BenchServingOptions options = options_;
    change(&options);
    EXPECT_THAT(RunBenchServing(options, out_),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why)));
  };
  using Options = BenchServingOptions;
  refused([](Options* o) { o->only = {"prefix", "speed"}; }, "'speed'");
  refused([](Options* o) { o->threads = -1; }, "--threads is -1");
  refused([](Options* o) { o->isa = "mmx"; }, "mmx");
  refused([](Options* o) { o->weights = "heavy"; }, "heavy");
  refused([](Options* o) { o->drafts.repeat = 0; }, "--repeat is 0");
  refused([](Options* o) { o->drafts.batches = {}; }, "--draft_batch is empty");
  refused([](Options* o) { o->concurrency.streams = {0}; },
          "--concurrency is 0");
  refused([](Options* o) { o->stall.chunks = {0}; }, "--stall_chunks is 0");
  refused([](Options* o) { o->stall.long_tokens = 0; }, "--long_prompt is 0");
  refused([](Options* o) { o->mixed.sessions = 0; }, "--sessions is 0");
  EXPECT_EQ(out_.str(), "");
}

TEST_F(BenchServingTest, ErrorsNameWhatIsMissing) {
  options_.model_dir = directory_.File("nowhere");
  EXPECT_THAT(RunBenchServing(options_, out_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("nowhere")));
}

}  // namespace
}  // namespace switchyard
