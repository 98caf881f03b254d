#include "switchyard/text/text_commands.h"

#include <fstream>
#include <sstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"

namespace switchyard {
namespace {

using ::switchyard::testing::FixturePath;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::ModelPath;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<Json> ReadLines(std::istream& in) {
  std::vector<Json> lines;
  std::string line;
  while (std::getline(in, line)) lines.push_back(*ParseJson(line));
  return lines;
}

std::vector<Json> FixtureLines(absl::string_view name) {
  std::ifstream file(FixturePath(name));
  EXPECT_TRUE(file.is_open()) << name;
  return ReadLines(file);
}

std::string Joined(const std::vector<Json>& lines) {
  std::string text;
  for (const Json& line : lines) absl::StrAppend(&text, DumpJson(line), "\n");
  return text;
}

TEST(TextCommandsTest, TokenizesTheDemosReference) {
  std::ifstream file(ModelPath("demo/reference_answers.jsonl"));
  const std::vector<Json> answers = ReadLines(file);
  ASSERT_EQ(answers.size(), 900u);
  std::vector<Json> ids;
  for (const Json& answer : answers) {
    ids.push_back({{"ids", answer["output_ids"]}});
  }
  std::istringstream in(Joined(ids));
  std::stringstream text;
  ASSERT_THAT(RunTokenize({ModelPath("demo"), /*decode=*/true}, in, text),
              IsOk());
  std::stringstream again;
  std::stringstream encode(text.str());
  ASSERT_THAT(RunTokenize({ModelPath("demo")}, encode, again), IsOk());
  const std::vector<Json> texts = ReadLines(text);
  const std::vector<Json> round_trip = ReadLines(again);
  ASSERT_EQ(texts.size(), answers.size());
  ASSERT_EQ(round_trip.size(), answers.size());
  int equal = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(texts[i]["text"], answers[i]["text"]);
    if (round_trip[i]["ids"] == answers[i]["output_ids"]) ++equal;
  }
  // A model may write a text in other tokens than the tokenizer would.
  EXPECT_GT(equal, 400);
}

TEST(TextCommandsTest, SkipsSpecialTokens) {
  for (const bool skip : {false, true}) {
    std::istringstream in("{\"ids\": [21, 1529]}\n");
    std::ostringstream out;
    ASSERT_THAT(
        RunTokenize({ModelPath("demo"), /*decode=*/true, skip}, in, out),
        IsOk());
    EXPECT_EQ(out.str(),
              skip ? "{\"text\": \"6\"}\n" : "{\"text\": \"6<|im_end|>\"}\n");
  }
}

TEST(TextCommandsTest, WrongLinesAreAnsweredAndCounted) {
  std::istringstream in(
      "{\"text\": \"a\"}\n"
      "\n"
      "not json\n"
      "[]\n"
      "{\"text\": 5}\n"
      "{}\n"
      "{\"text\": \"a\"}");
  std::stringstream out;
  EXPECT_THAT(RunTokenize({ModelPath("demo")}, in, out),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("4 of 7 lines"),
                             HasSubstr("the first, line 3"))));
  const std::vector<Json> lines = ReadLines(out);
  ASSERT_EQ(lines.size(), 6u);
  EXPECT_TRUE(lines[0].contains("ids"));
  for (int i = 1; i <= 4; ++i) {
    EXPECT_TRUE(lines[i].contains("error")) << lines[i];
  }
  EXPECT_EQ(lines[5], lines[0]);
}

TEST(TextCommandsTest, IdsMustBeIntegers) {
  for (absl::string_view ids :
       {"5", "[1.5]", "[\"1\"]", "[99999999999]", "[18446744073709551615]",
        "[123456789012345678901234567890]", "[null]"}) {
    std::istringstream in(absl::StrCat("{\"ids\": ", ids, "}"));
    std::ostringstream out;
    EXPECT_FALSE(
        RunTokenize({ModelPath("demo"), /*decode=*/true}, in, out).ok());
    EXPECT_THAT(out.str(), HasSubstr("\"error\"")) << ids;
  }
  // Without a token, but ids.
  std::istringstream in("{\"ids\": [-1, 2147483647]}");
  std::ostringstream out;
  EXPECT_THAT(RunTokenize({ModelPath("demo"), /*decode=*/true}, in, out),
              IsOk());
  EXPECT_EQ(out.str(), "{\"text\": \"\"}\n");
}

TEST(TextCommandsTest, RendersTheCases) {
  int cases = 0;
  for (const auto& [format, file] :
       std::vector<std::pair<std::string, std::string>>{
           {"instruct", "instruct.jinja"},
           {"thinking", "thinking.jinja"},
           {"coder", "coder_next.jinja"},
           {"hybrid", "qwen3_hybrid_2504.jinja"}}) {
    std::vector<Json> inputs;
    std::vector<Json> expected;
    bool with_error = false;
    for (const Json& line : FixtureLines("chat_cases.jsonl")) {
      if (line["template"] != file) continue;
      inputs.push_back(line);
      expected.push_back(line);
      with_error |= line.contains("error");
    }
    std::istringstream in(Joined(inputs));
    std::stringstream out;
    EXPECT_EQ(RunRender({format}, in, out).ok(), !with_error);
    const std::vector<Json> lines = ReadLines(out);
    ASSERT_EQ(lines.size(), expected.size());
    for (size_t i = 0; i < lines.size(); ++i) {
      ++cases;
      if (expected[i].contains("error")) {
        EXPECT_TRUE(lines[i].contains("error"));
      } else {
        EXPECT_EQ(lines[i]["rendered"], expected[i]["rendered"]);
      }
    }
  }
  EXPECT_EQ(cases, 108);
}

TEST(TextCommandsTest, ParsesTheCases) {
  int cases = 0;
  for (const std::string format : {"json", "xml", "think", "nothink"}) {
    std::vector<Json> inputs;
    for (const Json& line : FixtureLines("parse_cases.jsonl")) {
      if (line["format"] == format) inputs.push_back(line);
    }
    std::istringstream in(Joined(inputs));
    std::stringstream out;
    EXPECT_THAT(RunParse({format}, in, out), IsOk());
    const std::vector<Json> lines = ReadLines(out);
    ASSERT_EQ(lines.size(), inputs.size());
    for (size_t i = 0; i < lines.size(); ++i) {
      ++cases;
      for (const char* key : {"reasoning", "content", "tool_calls"}) {
        ASSERT_EQ(lines[i].contains(key), inputs[i].contains(key)) << key;
        if (inputs[i].contains(key)) {
          EXPECT_EQ(lines[i][key], inputs[i][key]) << inputs[i]["text"];
        }
      }
    }
  }
  EXPECT_EQ(cases, 25);
}

TEST(TextCommandsTest, BadOptionsAreNamed) {
  std::istringstream in;
  std::ostringstream out;
  EXPECT_THAT(RunTokenize({"/nowhere"}, in, out),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere")));
  EXPECT_THAT(RunRender({"yaml"}, in, out),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("yaml")));
  EXPECT_THAT(RunParse({"yaml"}, in, out),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("yaml")));
}

TEST(TextCommandsTest, AnOutputThatFailsIsReported) {
  std::istringstream in("{\"text\": \"a\"}\n");
  std::ostringstream out;
  out.setstate(std::ios::badbit);
  EXPECT_THAT(RunTokenize({ModelPath("demo")}, in, out),
              StatusIs(absl::StatusCode::kDataLoss));

  std::istringstream again("{\"text\": \"a\"}\n");
  std::ofstream full("/dev/full");
  ASSERT_TRUE(full.is_open());
  EXPECT_THAT(RunTokenize({ModelPath("demo")}, again, full),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("No space left on device")));
}

}  // namespace
}  // namespace switchyard
