// The bundled model's tokenizer and template, against its reference answers.

#include "absl/container/flat_hash_map.h"
#include "gtest/gtest.h"
#include "router/text/chat_format.h"
#include "tests/testing/matchers.h"
#include "tests/text/test_files.h"
#include "text/tokenizer.h"

namespace switchyard::router {
namespace {

TEST(DemoModelTest, PromptsAndAnswersEqualTheReference) {
  const std::string directory =
      std::string(SWITCHYARD_SOURCE_DIR) + "/models/demo";
  const auto format = DetectChatFormat(directory);
  ASSERT_THAT(format, testing::IsOkAndHolds(ChatFormat::kSwitchable));
  const auto tokenizer = text::Tokenizer::Load(directory);
  ASSERT_THAT(tokenizer, testing::IsOk());
  EXPECT_EQ((*tokenizer)->vocab_size(), 1536);

  absl::flat_hash_map<int64_t, Json> answers;
  for (Json& answer :
       text::ReadJsonLines("models/demo/reference_answers.jsonl")) {
    const int64_t id = answer["id"].get<int64_t>();
    answers.emplace(id, std::move(answer));
  }
  int cases = 0;
  for (const Json& question : text::ReadJsonLines("models/demo/eval.jsonl")) {
    ++cases;
    const auto answer = answers.find(question["id"].get<int64_t>());
    ASSERT_NE(answer, answers.end()) << question["id"];
    ChatPrompt prompt;
    prompt.messages = question["messages"];
    prompt.tools = question["tools"];
    prompt.kwargs["add_generation_prompt"] = true;
    prompt.kwargs["enable_thinking"] = question["enable_thinking"];
    const auto text = RenderChat(*format, prompt);
    ASSERT_THAT(text, testing::IsOk());
    EXPECT_EQ((*tokenizer)->Encode(*text),
              text::IdsOf(answer->second["prompt_ids"]))
        << *text;
    EXPECT_EQ(
        (*tokenizer)->Decode(text::IdsOf(answer->second["output_ids"]), false),
        answer->second["text"].get<std::string>());
    EXPECT_EQ(PromptOpensThinking(*format, prompt.kwargs),
              question["enable_thinking"].get<bool>());
  }
  EXPECT_EQ(cases, 900);
}

}  // namespace
}  // namespace switchyard::router
