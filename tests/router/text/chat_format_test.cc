#include "router/text/chat_format.h"

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"
#include "tests/text/test_files.h"
#include "text/tokenizer.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::IsOkAndHolds;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

ChatFormat FormatOfTemplate(const std::string& name) {
  static const std::map<std::string, ChatFormat> kFormats = {
      {"instruct.jinja", ChatFormat::kInstruct},
      {"thinking.jinja", ChatFormat::kThinking},
      {"coder_next.jinja", ChatFormat::kCoder},
      {"qwen3_hybrid_2504.jinja", ChatFormat::kHybrid}};
  return kFormats.at(name);
}

TEST(ChatFormatTest, RendersEveryCase) {
  int cases = 0;
  int with_ids = 0;
  for (const Json& line :
       text::ReadJsonLines("tests/fixtures/chat_cases.jsonl")) {
    ++cases;
    ChatPrompt prompt;
    prompt.messages = line["messages"];
    prompt.tools = line["tools"];
    prompt.kwargs = line["kwargs"];
    const auto text = RenderChat(
        FormatOfTemplate(line["template"].get<std::string>()), prompt);
    if (line.contains("error")) {
      EXPECT_THAT(text, StatusIs(absl::StatusCode::kInvalidArgument))
          << line["id"];
      continue;
    }
    ASSERT_THAT(text, IsOk()) << line["id"];
    EXPECT_EQ(*text, line["rendered"].get<std::string>()) << line["id"];
    if (line.contains("ids")) {
      ++with_ids;
      EXPECT_EQ(text::RealTokenizer().Encode(*text), text::IdsOf(line["ids"]))
          << line["id"];
    }
  }
  EXPECT_EQ(cases, 108);
  EXPECT_GT(with_ids, 10);
}

absl::StatusOr<std::string> Render(ChatFormat format,
                                   absl::string_view messages,
                                   absl::string_view kwargs = "{}",
                                   absl::string_view tools = "null") {
  ChatPrompt prompt;
  prompt.messages = *ParseJson(messages);
  prompt.kwargs = *ParseJson(kwargs);
  prompt.tools = *ParseJson(tools);
  return RenderChat(format, prompt);
}

constexpr absl::string_view kAsk = R"([{"role": "user", "content": "q"}])";
constexpr absl::string_view kGenerate = R"({"add_generation_prompt": true})";

TEST(ChatFormatTest, SwitchableOpensThinkingWhenAsked) {
  EXPECT_THAT(
      Render(ChatFormat::kSwitchable, kAsk,
             R"({"add_generation_prompt": true, "enable_thinking": true})"),
      IsOkAndHolds("<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
                   "<think>\n"));
  for (absl::string_view kwargs :
       {kGenerate,
        absl::string_view(
            R"({"add_generation_prompt": true, "enable_thinking": false})"),
        absl::string_view(
            R"({"add_generation_prompt": true, "enable_thinking": 1})")}) {
    EXPECT_THAT(Render(ChatFormat::kSwitchable, kAsk, kwargs),
                IsOkAndHolds("<|im_start|>user\nq<|im_end|>\n"
                             "<|im_start|>assistant\n"));
    EXPECT_FALSE(
        PromptOpensThinking(ChatFormat::kSwitchable, *ParseJson(kwargs)));
  }
}

TEST(ChatFormatTest, SwitchableDropsReasoningOfEarlierAnswers) {
  EXPECT_THAT(Render(ChatFormat::kSwitchable,
                     R"([{"role": "user", "content": "q"},
                         {"role": "assistant",
                          "content": "<think>\nr\n</think>\n\na</think>\nb"}])"),
              IsOkAndHolds("<|im_start|>user\nq<|im_end|>\n"
                           "<|im_start|>assistant\nb<|im_end|>\n"));
}

// With it, a prompt begins with the one before it and what the model answered.
TEST(ChatFormatTest, PreservesThinkingWhenAsked) {
  constexpr absl::string_view kFirst = R"([{"role": "user", "content": "q"}])";
  constexpr absl::string_view kSecond = R"([
      {"role": "user", "content": "q"},
      {"role": "assistant", "content": "a", "reasoning_content": "r"},
      {"role": "user", "content": "p"}])";
  constexpr absl::string_view kKwargs =
      R"({"add_generation_prompt": true, "enable_thinking": true,
          "preserve_thinking": true})";
  for (const ChatFormat format :
       {ChatFormat::kThinking, ChatFormat::kSwitchable}) {
    SCOPED_TRACE(ChatFormatName(format));
    const auto first = Render(format, kFirst, kKwargs);
    const auto second = Render(format, kSecond, kKwargs);
    ASSERT_TRUE(first.ok() && second.ok());
    EXPECT_THAT(*second, ::testing::StartsWith(absl::StrCat(
                             *first, "r\n</think>\n\na<|im_end|>\n")));
    EXPECT_THAT(Render(format, kSecond),
                IsOkAndHolds(::testing::Not(::testing::HasSubstr("think"))));
  }
  EXPECT_THAT(Render(ChatFormat::kInstruct, kSecond, kKwargs),
              IsOkAndHolds(::testing::Not(::testing::HasSubstr("think"))));
}

TEST(ChatFormatTest, TellsWhatReasoningItHides) {
  ChatPrompt prompt;
  prompt.messages = *ParseJson(R"([
      {"role": "user", "content": "q"},
      {"role": "assistant", "content": "a", "reasoning_content": "one"},
      {"role": "user", "content": "p"},
      {"role": "assistant", "content": "<think>\ntwo\n</think>\n\nb"},
      {"role": "tool", "content": "t"}])");
  const auto hidden = [&](ChatFormat format) {
    std::string text = "of before";
    EXPECT_TRUE(RenderChat(format, prompt, &text).ok());
    return text;
  };
  EXPECT_EQ(hidden(ChatFormat::kThinking), "one");
  EXPECT_EQ(hidden(ChatFormat::kHybrid), "one");
  EXPECT_EQ(hidden(ChatFormat::kSwitchable), "onetwo");
  EXPECT_EQ(hidden(ChatFormat::kInstruct), "");
  EXPECT_EQ(hidden(ChatFormat::kCoder), "");
  prompt.kwargs = {{"preserve_thinking", true}};
  EXPECT_EQ(hidden(ChatFormat::kThinking), "");
  EXPECT_EQ(hidden(ChatFormat::kSwitchable), "");
}

TEST(ChatFormatTest, OnlyThinkingAndSwitchedPromptsAreOpen) {
  const Json generate = *ParseJson(kGenerate);
  EXPECT_TRUE(PromptOpensThinking(ChatFormat::kThinking, generate));
  EXPECT_FALSE(PromptOpensThinking(ChatFormat::kThinking, Json::object()));
  EXPECT_FALSE(PromptOpensThinking(ChatFormat::kHybrid, generate));
  EXPECT_FALSE(PromptOpensThinking(ChatFormat::kInstruct, generate));
  EXPECT_FALSE(PromptOpensThinking(ChatFormat::kCoder, Json()));
}

TEST(ChatFormatTest, ErrorsNameTheMessage) {
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(Render(ChatFormat::kInstruct, "[]"),
              StatusIs(kInvalid, HasSubstr("at least one message")));
  EXPECT_THAT(Render(ChatFormat::kInstruct, "{}"), StatusIs(kInvalid));
  EXPECT_THAT(Render(ChatFormat::kInstruct, R"([{"role": "user"}, 7])"),
              StatusIs(kInvalid, HasSubstr("messages[1]")));
  EXPECT_THAT(
      Render(ChatFormat::kInstruct, R"([{"role": "system", "content": null}])"),
      StatusIs(kInvalid,
               AllOf(HasSubstr("messages[0] (system)"), HasSubstr("content"))));
  EXPECT_THAT(Render(ChatFormat::kHybrid, R"([{"role": "user"}])"),
              StatusIs(kInvalid, HasSubstr("content is missing")));
  EXPECT_THAT(Render(ChatFormat::kCoder,
                     R"([{"role": "user", "content": "q"}, {"content": "q"}])"),
              StatusIs(kInvalid, HasSubstr("messages[1] (no role)")));
  EXPECT_THAT(
      Render(ChatFormat::kInstruct,
             R"([{"role": "assistant", "tool_calls": [{"name": "f"}]}])"),
      StatusIs(kInvalid, HasSubstr("no arguments")));
  EXPECT_THAT(Render(ChatFormat::kInstruct,
                     R"([{"role": "user", "content": "q"}])", "{}", R"("f")"),
              StatusIs(kInvalid, HasSubstr("tools")));
}

TEST(ChatFormatTest, TypesPrintLikePython) {
  const auto text = Render(ChatFormat::kCoder, kAsk, "{}",
                           R"([{"name": "f", "parameters": {"properties": {
            "p": {"type": ["it's", "a\n\u0001\u00e9\u200b", "x'\"y", null, true,
                           1.0, {"k": []}]}}}}])");
  ASSERT_THAT(text, IsOk());
  EXPECT_THAT(*text,
              HasSubstr("\n<type>[\"it's\", 'a\\n\\x01é\\u200b', 'x\\'\"y', "
                        "None, True, 1.0, {'k': []}]</type>"));
}

TEST(ChatFormatTest, ContinuesTheFinalMessage) {
  constexpr absl::string_view kContinue = R"({"continue_final_message": true})";
  // White space at its end stays, unless the format trims it.
  EXPECT_THAT(Render(ChatFormat::kInstruct,
                     R"([{"role": "user", "content": "same"},
                         {"role": "assistant", "content": "same "}])",
                     kContinue),
              IsOkAndHolds("<|im_start|>user\nsame<|im_end|>\n"
                           "<|im_start|>assistant\nsame "));
  EXPECT_THAT(Render(ChatFormat::kInstruct,
                     R"([{"role": "assistant", "content": ""}])", kContinue),
              IsOkAndHolds("<|im_start|>assistant\n"));
  EXPECT_THAT(Render(ChatFormat::kCoder,
                     R"([{"role": "user", "content": "q"},
                         {"role": "assistant", "content": " a ", "tool_calls":
                           [{"name": "f", "arguments": {}}]}])",
                     kContinue),
              IsOkAndHolds("<|im_start|>user\nq<|im_end|>\n"
                           "<|im_start|>assistant\na"));
  EXPECT_THAT(
      Render(ChatFormat::kSwitchable,
             R"([{"role": "assistant", "content": "r</think>a"}])", kContinue),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("does not show all")));
  EXPECT_THAT(
      Render(ChatFormat::kInstruct, R"([{"role": "other", "content": "x"}])",
             kContinue),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("does not show")));
  EXPECT_THAT(
      Render(ChatFormat::kInstruct, kAsk,
             R"({"continue_final_message": true, "add_generation_prompt": 1})"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("exclude")));
}

TEST(ChatFormatTest, NamesGoBothWays) {
  for (const ChatFormat format :
       {ChatFormat::kInstruct, ChatFormat::kThinking, ChatFormat::kCoder,
        ChatFormat::kHybrid, ChatFormat::kSwitchable}) {
    EXPECT_THAT(ParseChatFormat(ChatFormatName(format)), IsOkAndHolds(format));
  }
  EXPECT_THAT(
      ParseChatFormat("llama"),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("switchable")));
}

}  // namespace
}  // namespace switchyard::router
