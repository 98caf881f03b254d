#include "switchyard/bench/bench_command.h"

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard {
namespace {

using ::switchyard::testing::FixturePath;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class BenchCommandTest : public ::testing::Test {
 protected:
  BenchCommandTest() {
    options_.model_dir = FixturePath("tiny_a_bf16");
    options_.threads = 2;
    options_.batches = {1, 3};
    options_.contexts = {0, 40};
    options_.prompts = {20};
    options_.repeat = 3;
    options_.steps = 4;
    options_.prefill_chunk = 8;
    options_.limit_seconds = 0;
    options_.json_path = directory_.File("bench.json");
  }

  Json Written() {
    const auto text = ReadFile(options_.json_path, 1 << 20);
    EXPECT_THAT(text.status(), IsOk());
    const auto json = ParseJson(*text);
    EXPECT_THAT(json.status(), IsOk());
    return json.ok() ? *json : Json();
  }

  const TempDir directory_;
  BenchOptions options_;
  std::ostringstream out_;
};

TEST_F(BenchCommandTest, MeasuresAllThatWasAskedFor) {
  ASSERT_THAT(RunBench(options_, out_), IsOk());
  const Json json = Written();
  EXPECT_EQ(json["schema"], 1);
  EXPECT_EQ(json["setting"]["threads"], 2);
  EXPECT_EQ(json["setting"]["transport"], "in process");
  EXPECT_EQ(json["setting"]["kv_cache_dtype"], "float32");
  EXPECT_EQ(json["model"]["expert_format"], "bf16");
  EXPECT_EQ(json["model"]["dense_format"], "bf16");
  EXPECT_GT(json["model"]["active_weights"], 0);
  for (const char* limit :
       {"read_bytes_per_second", "f32_operations_per_second"}) {
    for (const char* when : {"before", "after"}) {
      EXPECT_GT(json["limits"][limit][when]["median"], 0.0) << limit << when;
    }
  }
  struct Case {
    const char* phase;
    int batch, context, tokens, steps;
  };
  const std::vector<Case> cases = {{"decode", 1, 0, 4, 4},
                                   {"decode", 3, 0, 12, 4},
                                   {"decode", 1, 40, 4, 4},
                                   {"decode", 3, 40, 12, 4},
                                   {"prefill", 1, 0, 20, 3}};
  ASSERT_EQ(json["measurements"].size(), cases.size());
  for (size_t i = 0; i < cases.size(); ++i) {
    const Json& m = json["measurements"][i];
    EXPECT_EQ(m["phase"], cases[i].phase);
    EXPECT_EQ(m["batch"], cases[i].batch);
    EXPECT_EQ(m["context"], cases[i].context);
    EXPECT_EQ(m["tokens"], cases[i].tokens);
    EXPECT_EQ(m["steps"], cases[i].steps);
    EXPECT_EQ(m["repetitions"], 3);
    const Json& rate = m["tokens_per_second"];
    EXPECT_GT(rate["min"], 0.0);
    EXPECT_LE(rate["min"], rate["median"]);
    EXPECT_LE(rate["median"], rate["max"]);
    EXPECT_GT(m["bytes_per_second"], 0.0);
    EXPECT_GT(m["share_of_roofline"], 0.0);
    EXPECT_GT(m["resident_bytes"], 0);
    EXPECT_GT(m["state_bytes"], 0);
    EXPECT_GE(m["distinct_experts_per_layer"], 1.0);
    // Every moment is some part's.
    double parts = 0;
    for (const auto& [name, part] : m["parts"].items()) {
      parts += part["seconds_per_step"].get<double>();
      EXPECT_GE(part["seconds_per_step"], 0.0) << name;
    }
    EXPECT_EQ(m["parts"].size(), 11u);
    EXPECT_NEAR(parts, m["seconds_per_step"].get<double>(), 1e-9);
    for (const char* part :
         {"projections", "recurrence", "attention", "gate", "routed_experts",
          "shared_expert", "lm_head", "sampling"}) {
      EXPECT_GT(m["parts"][part]["seconds_per_step"], 0.0) << part;
    }
  }
  EXPECT_TRUE(json["raw_sockets"].empty());
  EXPECT_THAT(out_.str(),
              AllOf(HasSubstr("decode  3 x 40"), HasSubstr("prefill     20"),
                    HasSubstr("routed_experts"), HasSubstr("MiB in RAM")));
}

// Of the 512 tokens' experts at most all, of one token's exactly its own.
TEST_F(BenchCommandTest, CountsTheExpertsThatWereUsed) {
  options_.batches = {1};
  options_.contexts = {0};
  options_.only = {"decode"};
  ASSERT_THAT(RunBench(options_, out_), IsOk());
  const Json json = Written();
  ASSERT_EQ(json["measurements"].size(), 1u);
  const auto config = ReadFile(FixturePath("tiny_a_bf16/config.json"), 1 << 20);
  ASSERT_THAT(config.status(), IsOk());
  const Json chosen = (*ParseJson(*config))["num_experts_per_tok"];
  EXPECT_EQ(json["measurements"][0]["distinct_experts_per_layer"],
            chosen.get<double>());
}

TEST_F(BenchCommandTest, OnlyLimitsNeedNoModelInMemory) {
  options_.only = {"limits"};
  ASSERT_THAT(RunBench(options_, out_), IsOk());
  EXPECT_TRUE(Written()["measurements"].empty());
  EXPECT_THAT(out_.str(), HasSubstr("GB/s"));
}

TEST_F(BenchCommandTest, NarrowerCachesReadLess) {
  options_.only = {"decode"};
  options_.batches = {1};
  options_.contexts = {40};
  const auto attention_bytes = [this](const char* dtype) {
    options_.kv_cache_dtype = dtype;
    EXPECT_THAT(RunBench(options_, out_), IsOk());
    const Json json = Written();
    EXPECT_EQ(json["setting"]["kv_cache_dtype"], dtype);
    return json["measurements"][0]["parts"]["attention"]["state_bytes"]
        .get<double>();
  };
  const double exact = attention_bytes("float32");
  EXPECT_GT(exact, 0);
  EXPECT_EQ(attention_bytes("bfloat16"), exact / 2);
  EXPECT_LT(attention_bytes("int8"), exact / 2);
}

TEST_F(BenchCommandTest, WhatCannotBeIsRefusedFirst) {
  const auto refused = [this](auto change, const char* why) {
    BenchOptions options = options_;
    change(&options);
    EXPECT_THAT(RunBench(options, out_),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why)));
  };
  refused([](BenchOptions* o) { o->threads = -1; }, "--threads is -1");
  refused([](BenchOptions* o) { o->batches = {}; }, "--batch is empty");
  refused([](BenchOptions* o) { o->batches = {1, 0}; }, "--batch is 0");
  refused([](BenchOptions* o) { o->contexts = {-1}; }, "--context is -1");
  refused([](BenchOptions* o) { o->prompts = {0}; }, "--prompt is 0");
  refused([](BenchOptions* o) { o->repeat = 0; }, "--repeat is 0");
  refused([](BenchOptions* o) { o->steps = 0; }, "--steps is 0");
  refused([](BenchOptions* o) { o->prefill_chunk = 0; },
          "--chunked_prefill_size is 0");
  refused([](BenchOptions* o) { o->expert_workers = -2; },
          "--expert_workers is -2");
  refused([](BenchOptions* o) { o->worker_threads = 0; },
          "--worker_threads is 0");
  refused([](BenchOptions* o) { o->transport = "pigeon"; }, "'pigeon'");
  refused([](BenchOptions* o) { o->only = {"decode", "all"}; }, "'all'");
  refused([](BenchOptions* o) { o->isa = "mmx"; }, "mmx");
  refused([](BenchOptions* o) { o->weights = "heavy"; }, "heavy");
  refused([](BenchOptions* o) { o->kv_cache_dtype = "fp8"; }, "'fp8'");
  refused([](BenchOptions* o) { o->cpus = "0-"; }, "0-");
  refused([](BenchOptions* o) { o->contexts = {1 << 22}; }, "--context");
  refused([](BenchOptions* o) { o->prompts = {1 << 22}; }, "--prompt");
  EXPECT_EQ(out_.str(), "");
}

TEST_F(BenchCommandTest, ErrorsNameWhatIsMissing) {
  options_.model_dir = directory_.File("nowhere");
  EXPECT_THAT(RunBench(options_, out_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("nowhere")));
}

TEST_F(BenchCommandTest, AFileThatCannotBeWritten) {
  options_.only = {"limits"};
  options_.json_path = directory_.File("no/such/bench.json");
  EXPECT_THAT(RunBench(options_, out_).message(),
              AllOf(HasSubstr("no/such/bench.json"), HasSubstr("--json")));
}

TEST(ParseNumbersTest, NumbersAndWhatIsNone) {
  EXPECT_THAT(*ParseNumbers("batch", "1,4,,16", 1), ElementsAre(1, 4, 16));
  EXPECT_THAT(*ParseNumbers("batch", "", 1), ElementsAre());
  for (const char* text :
       {"1,x", "0", "1.5", "1;2", "-3", "99999999999999999999"}) {
    EXPECT_THAT(
        ParseNumbers("batch", text, 1).status(),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("--batch")))
        << text;
  }
}

}  // namespace
}  // namespace switchyard
