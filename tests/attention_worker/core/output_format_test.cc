// Outputs that must follow a grammar: with a model that knows nothing of it,
// with drafts and without, replayed, cut off, and behind a thought.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attention_worker/core/engine.h"
#include "gmock/gmock.h"
#include "grammar/compile.h"
#include "gtest/gtest.h"
#include "tests/attention_worker/core/step_loop_rig.h"
#include "tests/testing/fake_model_runner.h"
#include "tests/testing/matchers.h"
#include "tests/testing/recording_sink.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeModelRunner;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::RecordingSink;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TokenRecord;
using ::testing::HasSubstr;

constexpr int32_t kThink = 47, kThinkEnd = 48, kEnd = 49;
constexpr int64_t kVocab = StepLoopRig::kVocab;
constexpr int64_t kDrafts = 3;

const std::vector<std::string>& Texts() {
  static const auto* const texts = [] {
    auto* made = new std::vector<std::string>;
    for (const char c : std::string("0123456789abcdefghijklm{}[]\",: \n-.")) {
      made->push_back(std::string(1, c));
    }
    for (const char* text : {"12", "ab", "abc", "\":", "{\"", "\"a\"", "], [",
                             "true", "null", "\n\n", "<t>", "</t>"}) {
      if (static_cast<int64_t>(made->size()) < kThink) made->push_back(text);
    }
    made->resize(kThink);
    made->push_back("<think>");
    made->push_back("</think>");
    made->push_back("");  // the end
    return made;
  }();
  return *texts;
}

std::shared_ptr<const grammar::Vocabulary> TestVocabulary() {
  return grammar::Vocabulary::Create(Texts(), kThink, kThinkEnd);
}

std::string TextOf(const Tokens& ids) {
  std::string text;
  for (const int32_t id : ids) text += Texts()[static_cast<size_t>(id)];
  return text;
}

struct Format {
  grammar::GrammarKind kind;
  const char* text;
};

std::vector<Format> Formats() {
  return {
      {grammar::GrammarKind::kRegex, "[a-f]{3,9}(12|,)*0"},
      {grammar::GrammarKind::kRegex, "(ab|abc|a)*(\\d\\d)?"},
      {grammar::GrammarKind::kEbnf, "root ::= \"[\" root* \"]\" | \"1\""},
      {grammar::GrammarKind::kJsonSchema,
       R"({"type": "object", "properties": {"a": {"type": "integer", "minimum":
          10, "maximum": 500}, "b": {"enum": ["ab", "abc", 1]}}, "required":
          ["a", "b"]})"},
      {grammar::GrammarKind::kJsonSchema,
       R"({"type": "array", "items": {"type": "array", "items": {"type":
          "integer", "minimum": 0, "maximum": 99}, "maxItems": 2}, "minItems":
          2, "maxItems": 3})"},
      {grammar::GrammarKind::kStructuralTag,
       R"({"format": {"type": "triggered_tags", "triggers": ["{a"], "tags": [
          {"begin": "{a:", "content": {"type": "regex", "pattern": "[ab]{2,4}"},
          "end": "}"}], "at_least_one": true}})"},
  };
}

class OutputFormatTest : public ::testing::Test {
 protected:
  struct Answer {
    Tokens ids;
    absl::Status status;
    FinishReason reason = FinishReason::kStop;
  };

  static std::shared_ptr<const grammar::CompiledGrammar> Compile(
      const Format& format, OutputReasoning reasoning) {
    auto compiled = grammar::CompileGrammar(
        format.kind, format.text,
        reasoning == OutputReasoning::kNone ? 0 : kNewlinesBehindThought,
        TestVocabulary());
    EXPECT_THAT(compiled, IsOk()) << format.text;
    return compiled.ok() ? *compiled : nullptr;
  }

  static GenerationRequest Request(
      const Format& format, uint64_t seed,
      OutputReasoning reasoning = OutputReasoning::kNone) {
    GenerationRequest request;
    request.id = "r";
    request.prompt_ids = {1, 2, static_cast<int32_t>(seed % kVocab)};
    request.max_tokens = 300;
    request.sampling.temperature = seed % 2 == 0 ? 0 : 1.5;
    request.sampling.seed = seed;
    request.stop_token_ids = {kEnd};
    request.format = OutputFormat{format.kind, format.text, reasoning};
    request.grammar = Compile(format, reasoning);
    return request;
  }

  // `drafts`: 0, or kDrafts; every `wrong`-th one is wrong (0: none).
  static Answer Run(GenerationRequest request, int64_t drafts, int wrong = 0) {
    StepLoopRig rig(
        {.drafts = drafts, .wrong_draft = [wrong](int64_t position) {
           return wrong > 0 && position % wrong == 0;
         }});
    const auto record = rig.Add(request);
    rig.StepUntilEmpty();
    return {record->ids(), record->status(), record->reason()};
  }

  // The output without its stop token, which must be where it may be.
  static void ExpectFollows(const Format& format, Tokens ids) {
    ASSERT_FALSE(ids.empty());
    EXPECT_EQ(ids.back(), kEnd);
    ids.pop_back();
    grammar::Matcher matcher(Compile(format, OutputReasoning::kNone));
    EXPECT_TRUE(matcher.Accept(TextOf(ids))) << TextOf(ids);
    EXPECT_TRUE(matcher.can_end()) << TextOf(ids);
  }
};

TEST_F(OutputFormatTest, TheSameWithDraftsAndWithout) {
  for (const Format& format : Formats()) {
    int ended = 0;
    for (uint64_t seed = 0; seed < 8; ++seed) {
      const Answer plain = Run(Request(format, seed), 0);
      ASSERT_THAT(plain.status, IsOk()) << format.text;
      if (plain.reason == FinishReason::kStop) {
        ExpectFollows(format, plain.ids);
        ++ended;
      }
      for (const int wrong : {0, 1, 2, 3}) {
        const Answer drafted = Run(Request(format, seed), kDrafts, wrong);
        EXPECT_EQ(drafted.ids, plain.ids) << format.text << " " << wrong;
        EXPECT_EQ(drafted.reason, plain.reason);
      }
    }
    EXPECT_GE(ended, 4) << format.text;
  }
}

TEST_F(OutputFormatTest, WithoutStopTokensItEndsWhereNothingCanFollow) {
  const Format format = {grammar::GrammarKind::kRegex, "[a-c]{4}[12]"};
  for (const int64_t drafts : {int64_t{0}, kDrafts}) {
    GenerationRequest request = Request(format, 3);
    request.stop_token_ids = {};
    const Answer answer = Run(std::move(request), drafts);
    ASSERT_THAT(answer.status, IsOk());
    EXPECT_EQ(answer.reason, FinishReason::kStop);
    grammar::Matcher matcher(Compile(format, OutputReasoning::kNone));
    EXPECT_TRUE(matcher.Accept(TextOf(answer.ids)));
    EXPECT_TRUE(matcher.must_end());
  }
}

TEST_F(OutputFormatTest, MaxTokensCuts) {
  const Format format = {grammar::GrammarKind::kRegex, "[a-c]{200}"};
  GenerationRequest request = Request(format, 2);
  request.max_tokens = 20;
  const Answer answer = Run(std::move(request), kDrafts);
  ASSERT_THAT(answer.status, IsOk());
  EXPECT_EQ(answer.reason, FinishReason::kLength);
  EXPECT_EQ(answer.ids.size(), 20u);
}

TEST_F(OutputFormatTest, GoesOnFromWhatAnotherWorkerGave) {
  for (const Format& format : Formats()) {
    const Answer whole = Run(Request(format, 5), 0);
    ASSERT_THAT(whole.status, IsOk());
    for (size_t given = 1; given < whole.ids.size(); given += 3) {
      GenerationRequest request = Request(format, 5);
      request.resumed_output_ids.assign(whole.ids.begin(),
                                        whole.ids.begin() + given);
      const Answer rest = Run(std::move(request), kDrafts, 2);
      ASSERT_THAT(rest.status, IsOk());
      EXPECT_EQ(rest.ids, Tokens(whole.ids.begin() + given, whole.ids.end()));
    }
  }
  GenerationRequest request = Request(Formats()[0], 5);
  request.resumed_output_ids = {1};  // "1", where only letters may stand
  EXPECT_THAT(Run(std::move(request), 0).status,
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("does not follow")));
}

TEST_F(OutputFormatTest, BeginsBehindTheThought) {
  const Format format = {grammar::GrammarKind::kRegex, "[a-f]{3}0"};
  int thoughts = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    for (const auto reasoning :
         {OutputReasoning::kOpened, OutputReasoning::kMaybe}) {
      const Answer plain = Run(Request(format, seed, reasoning), 0);
      ASSERT_THAT(plain.status, IsOk());
      const Answer drafted = Run(Request(format, seed, reasoning), kDrafts, 3);
      EXPECT_EQ(drafted.ids, plain.ids);
      if (plain.reason != FinishReason::kStop) continue;
      const auto end = std::find(plain.ids.begin(), plain.ids.end(), kThinkEnd);
      const bool thinks =
          reasoning == OutputReasoning::kOpened || plain.ids.front() == kThink;
      ASSERT_EQ(thinks, end != plain.ids.end());
      Tokens text(thinks ? end + 1 : plain.ids.begin(), plain.ids.end());
      // A line end or two may come first.
      while (!text.empty() && TextOf({text.front()})[0] == '\n') {
        text.erase(text.begin());
      }
      ExpectFollows(format, text);
      thoughts += thinks;
    }
  }
  EXPECT_GE(thoughts, 4);
}

// A budget of reasoning closes the thought, and the grammar goes on from there.
TEST_F(OutputFormatTest, BehindABudgetOfReasoning) {
  const Format format = {grammar::GrammarKind::kRegex, "[a-f]{3}0"};
  GenerationRequest request = Request(format, 4, OutputReasoning::kOpened);
  request.sampling.rules.logit_bias = {{kThinkEnd, -100.f}};
  request.sampling.rules.thinking = ThinkingBudget{
      .tokens = 5, .begin_id = -1, .end_id = kThinkEnd, .closing = {kThinkEnd}};
  const Answer answer = Run(std::move(request), kDrafts);
  ASSERT_THAT(answer.status, IsOk());
  ASSERT_GT(answer.ids.size(), 6u);
  EXPECT_EQ(answer.ids[5], kThinkEnd);
  Tokens text(answer.ids.begin() + 6, answer.ids.end());
  while (!text.empty() && TextOf({text.front()})[0] == '\n') {
    text.erase(text.begin());
  }
  ExpectFollows(format, text);
}

class OutputFormatEngineTest : public ::testing::Test {
 protected:
  void Start(bool with_vocabulary) {
    Engine::Options options;
    options.runner = &runner_;
    options.vocab_size = kVocab;
    options.max_model_len = 500;
    options.max_running_requests = 4;
    options.state_memory_bytes = 1 << 20;
    if (with_vocabulary) options.vocabulary = TestVocabulary();
    auto engine = Engine::Create(options);
    ASSERT_THAT(engine, IsOk());
    engine_ = *std::move(engine);
  }

  std::shared_ptr<TokenRecord> Submit(const std::string& id,
                                      const Format& format,
                                      absl::Status* status) {
    GenerationRequest request;
    request.id = id;
    request.prompt_ids = {1, 2, 3};
    request.max_tokens = 200;
    request.stop_token_ids = {kEnd};
    request.format = OutputFormat{format.kind, format.text};
    auto record = std::make_shared<TokenRecord>();
    *status = engine_->Submit(std::move(request),
                              std::make_unique<RecordingSink>(record));
    return record;
  }

  FakeModelRunner runner_{kVocab};
  std::unique_ptr<Engine> engine_;
};

TEST_F(OutputFormatEngineTest, CompilesAndAnswers) {
  Start(true);
  std::vector<std::shared_ptr<TokenRecord>> records;
  for (int i = 0; i < 4; ++i) {
    absl::Status status;
    records.push_back(Submit(std::to_string(i),
                             {grammar::GrammarKind::kRegex, "ab{2,9}c"},
                             &status));
    ASSERT_THAT(status, IsOk());
  }
  for (const auto& record : records) {
    ASSERT_TRUE(record->WaitUntilDone());
    ASSERT_THAT(record->status(), IsOk());
    EXPECT_EQ(record->reason(), FinishReason::kStop);
    EXPECT_THAT(TextOf(record->ids()), ::testing::MatchesRegex("abb+c"));
  }
}

TEST_F(OutputFormatEngineTest, TellsWhatIsWrongWithAGrammar) {
  Start(true);
  absl::Status status;
  const auto record =
      Submit("a", {grammar::GrammarKind::kRegex, "(unclosed"}, &status);
  ASSERT_THAT(status, IsOk());
  ASSERT_TRUE(record->WaitUntilDone());
  EXPECT_THAT(record->status(), StatusIs(absl::StatusCode::kInvalidArgument,
                                         HasSubstr("without its )")));
  // Its id is free again, and the engine has forgotten it.
  Submit("a", {grammar::GrammarKind::kRegex, "a"}, &status);
  EXPECT_THAT(status, IsOk());
}

TEST_F(OutputFormatEngineTest, CancelledAndStoppedWhileCompiling) {
  Start(true);
  runner_.Hold();
  absl::Status status;
  // Of a size that takes a while.
  const auto cancelled =
      Submit("a", {grammar::GrammarKind::kRegex, "([ab]{3,90}c){40}"}, &status);
  ASSERT_THAT(status, IsOk());
  engine_->Cancel("a");
  const auto stopped =
      Submit("b", {grammar::GrammarKind::kRegex, "([ab]{3,91}c){40}"}, &status);
  ASSERT_THAT(status, IsOk());
  runner_.Release();
  engine_->Stop();
  ASSERT_TRUE(cancelled->WaitUntilDone());
  ASSERT_TRUE(stopped->WaitUntilDone());
  EXPECT_FALSE(cancelled->status().ok());
}

TEST_F(OutputFormatEngineTest, NeedsATokenizer) {
  Start(false);
  absl::Status status;
  Submit("a", {grammar::GrammarKind::kRegex, "a"}, &status);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr("tokenizer")));
}

}  // namespace
}  // namespace switchyard::attention_worker
