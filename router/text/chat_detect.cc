// Which format a checkpoint's template is, by what its text must contain to
// render that format. Templates are not run: RenderChat has its own renderers.

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "router/text/chat_format.h"
#include "router/text/chat_render.h"

namespace switchyard::router {
namespace {

constexpr int64_t kMaxTemplateBytes = 1 << 20;
constexpr int64_t kMaxConfigBytes = 64 << 20;

struct Template {
  std::string path;
  std::string text;
};

// tokenizer_config.json's chat_template: text, or a list of named texts.
absl::StatusOr<std::string> TemplateOfConfig(const std::string& path,
                                             const Json& config) {
  const Json* value = FindMember(config, "chat_template");
  if (value != nullptr && value->is_string()) return value->get<std::string>();
  if (value != nullptr && value->is_array()) {
    for (const Json& entry : *value) {
      const Json* name = FindMember(entry, "name");
      const Json* text = FindMember(entry, "template");
      if (name != nullptr && *name == "default" && text != nullptr &&
          text->is_string()) {
        return text->get<std::string>();
      }
    }
  }
  return absl::NotFoundError(absl::StrCat(
      path, ": no chat_template in it, and no chat_template.jinja beside it"));
}

absl::StatusOr<Template> ReadTemplate(const std::string& directory) {
  const std::string jinja = directory + "/chat_template.jinja";
  absl::StatusOr<std::string> text = ReadFile(jinja, kMaxTemplateBytes);
  if (text.ok()) return Template{jinja, *std::move(text)};
  if (!absl::IsNotFound(text.status())) return text.status();
  const std::string path = directory + "/tokenizer_config.json";
  const absl::StatusOr<std::string> config_text =
      ReadFile(path, kMaxConfigBytes);
  if (absl::IsNotFound(config_text.status())) {
    return absl::NotFoundError(
        absl::StrCat(directory,
                     ": neither chat_template.jinja nor tokenizer_config.json; "
                     "copy one from the model's repository"));
  }
  SY_RETURN_IF_ERROR(config_text.status());
  const absl::StatusOr<Json> config = ParseJson(*config_text);
  if (!config.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", config.status().message()));
  }
  SY_ASSIGN_OR_RETURN(std::string from_config, TemplateOfConfig(path, *config));
  return Template{path, std::move(from_config)};
}

// What the checks below look for.
struct Features {
  explicit Features(absl::string_view text) {
    const auto has = [text](absl::string_view part) {
      return absl::StrContains(text, part);
    };
    chatml = has("<|im_start|>") && has("<|im_end|>") && has("<tools>") &&
             has("<tool_response>");
    json_calls =
        has("\"name\\\": <function-name>") || has("\"name\": <function-name>");
    xml_calls = has("<function=") && has("<parameter=");
    drops_reasoning = has("</think>");
    // Qwen2.5 has a default system prompt, which none of the JSON formats has.
    default_system = has("You are Qwen");
    // Coder-Next opens the user turn of a tool result without a newline; its
    // predecessors, whose arguments print otherwise, with one.
    opens_results_bare =
        has("'<|im_start|>user'") || has("\"<|im_start|>user\"");
    // What comes after the messages. A template has it at its end.
    const size_t prompt = text.rfind("add_generation_prompt");
    const absl::string_view tail =
        prompt == absl::string_view::npos ? "" : text.substr(prompt);
    has_prompt = !tail.empty();
    prompt_thinks = absl::StrContains(tail, "<think>");
    prompt_closes_thinking = absl::StrContains(tail, "</think>");
    prompt_is_switched = absl::StrContains(tail, "enable_thinking");
  }

  bool chatml = false;
  bool json_calls = false;
  bool xml_calls = false;
  bool drops_reasoning = false;
  bool default_system = false;
  bool opens_results_bare = false;
  bool has_prompt = false;
  bool prompt_thinks = false;
  bool prompt_closes_thinking = false;
  bool prompt_is_switched = false;
};

absl::StatusOr<ChatFormat> FormatOf(const Template& source) {
  const Features f(source.text);
  if (f.chatml && f.has_prompt && f.xml_calls && !f.json_calls &&
      !f.prompt_thinks && !f.prompt_is_switched && f.opens_results_bare) {
    return ChatFormat::kCoder;
  }
  if (f.chatml && f.has_prompt && f.json_calls && !f.xml_calls &&
      !f.default_system) {
    if (!f.prompt_thinks && !f.prompt_is_switched && !f.drops_reasoning) {
      return ChatFormat::kInstruct;
    }
    if (f.prompt_thinks && f.drops_reasoning) {
      if (!f.prompt_is_switched && !f.prompt_closes_thinking) {
        return ChatFormat::kThinking;
      }
      if (f.prompt_is_switched) {
        return f.prompt_closes_thinking ? ChatFormat::kHybrid
                                        : ChatFormat::kSwitchable;
      }
    }
  }
  return absl::InvalidArgumentError(absl::StrCat(
      source.path,
      ": this chat template is none of instruct, thinking, coder, hybrid and "
      "switchable; if it renders like one of them, name that format instead of "
      "detecting it"));
}

}  // namespace

absl::StatusOr<ChatFormat> DetectChatFormat(const std::string& directory) {
  SY_ASSIGN_OR_RETURN(const Template source, ReadTemplate(directory));
  return FormatOf(source);
}

}  // namespace switchyard::router
