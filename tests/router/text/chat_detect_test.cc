#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "router/text/chat_format.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::IsOkAndHolds;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Templates that have what the real ones have, in other words.
const char kJsonCalls[] =
    "{% if tools %}<|im_start|>system <tools>"
    "{\"name\": <function-name>}</tools><|im_end|>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.content }}<tool_response>"
    "<|im_end|>{% endfor %}";
const char kStrips[] = "{{ c.split('</think>')[-1] }}";
const char kPrompt[] = "{% if add_generation_prompt %}<|im_start|>assistant\n";

absl::StatusOr<ChatFormat> Detect(const std::string& text) {
  const TempDir directory;
  directory.Write("chat_template.jinja", text);
  return DetectChatFormat(directory.path());
}

TEST(ChatDetectTest, TellsTheFormatsApart) {
  const std::string calls = kJsonCalls;
  EXPECT_THAT(Detect(calls + kPrompt + "{% endif %}"),
              IsOkAndHolds(ChatFormat::kInstruct));
  EXPECT_THAT(Detect(calls + kStrips + kPrompt + "<think>{% endif %}"),
              IsOkAndHolds(ChatFormat::kThinking));
  EXPECT_THAT(
      Detect(calls + kStrips + kPrompt +
             "{% if enable_thinking is false %}<think></think>{% endif %}"),
      IsOkAndHolds(ChatFormat::kHybrid));
  EXPECT_THAT(Detect(calls + kStrips + kPrompt +
                     "{% if enable_thinking is true %}<think>{% endif %}"),
              IsOkAndHolds(ChatFormat::kSwitchable));
  EXPECT_THAT(
      Detect(std::string("<|im_start|><tools><function=f><parameter=p>"
                         "{{ '<|im_start|>user' }}<tool_response><|im_end|>") +
             kPrompt),
      IsOkAndHolds(ChatFormat::kCoder));
}

TEST(ChatDetectTest, RefusesWhatWouldRenderOtherwise) {
  const std::string calls = kJsonCalls;
  const auto refused = StatusIs(
      absl::StatusCode::kInvalidArgument,
      AllOf(HasSubstr("chat_template.jinja"), HasSubstr("switchable")));
  EXPECT_THAT(Detect(""), refused);
  EXPECT_THAT(Detect("{{ bos_token }}[INST] {{ m }} [/INST]"), refused);
  EXPECT_THAT(Detect(calls), refused) << "no generation prompt";
  EXPECT_THAT(Detect(calls + "You are Qwen, created by" + kPrompt), refused)
      << "a default system prompt";
  EXPECT_THAT(
      Detect(std::string("<|im_start|><tools><function=f><parameter=p>"
                         "'<|im_start|>user\\n'<tool_response><|im_end|>") +
             kPrompt),
      refused)
      << "an older Coder";
}

TEST(ChatDetectTest, LooksIntoTheConfigWhereThereIsNoFile) {
  const TempDir directory;
  EXPECT_THAT(DetectChatFormat(directory.path()),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("neither chat_template.jinja")));
  directory.Write("tokenizer_config.json", "{\"chat_template\": null}");
  EXPECT_THAT(
      DetectChatFormat(directory.path()),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("no chat_template")));
  directory.Write("tokenizer_config.json", "{");
  EXPECT_THAT(DetectChatFormat(directory.path()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("tokenizer_config.json")));
  Json config;
  config["chat_template"] = std::string(kJsonCalls) + kPrompt;
  directory.Write("tokenizer_config.json", DumpJson(config));
  EXPECT_THAT(DetectChatFormat(directory.path()),
              IsOkAndHolds(ChatFormat::kInstruct));
  Json named;
  named["name"] = "default";
  named["template"] = std::string(kJsonCalls) + kStrips + kPrompt + "<think>";
  config["chat_template"] = Json::array({named});
  directory.Write("tokenizer_config.json", DumpJson(config));
  EXPECT_THAT(DetectChatFormat(directory.path()),
              IsOkAndHolds(ChatFormat::kThinking));
}

}  // namespace
}  // namespace switchyard::router
