#include "switchyard/bench/serving/prompts.h"

#include <memory>
#include <random>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "router/text/chat_format.h"
#include "text/tokenizer.h"

namespace switchyard::bench {
namespace {

constexpr int64_t kMaxFileBytes = 64 << 20;

absl::StatusOr<std::string> Rendered(router::ChatFormat format,
                                     absl::string_view line) {
  SY_ASSIGN_OR_RETURN(const Json question, ParseJson(line));
  if (!question.is_object() || !question.contains("messages")) {
    return absl::InvalidArgumentError("it has no \"messages\"");
  }
  router::ChatPrompt prompt;
  prompt.messages = question["messages"];
  if (question.contains("tools")) prompt.tools = question["tools"];
  prompt.kwargs["add_generation_prompt"] = true;
  if (question.contains("enable_thinking")) {
    prompt.kwargs["enable_thinking"] = question["enable_thinking"];
  }
  return router::RenderChat(format, prompt);
}

}  // namespace

std::vector<int32_t> RandomPrompt(int64_t tokens, int64_t vocab_size,
                                  uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(tokens));
  for (int64_t t = 0; t < tokens; ++t) {
    // Not a standard distribution: those differ between libraries.
    ids.push_back(
        static_cast<int32_t>(random() % static_cast<uint64_t>(vocab_size)));
  }
  return ids;
}

absl::StatusOr<std::vector<std::vector<int32_t>>> OwnPrompts(
    const std::string& model_dir) {
  const std::string path = absl::StrCat(model_dir, "/eval.jsonl");
  std::vector<std::vector<int32_t>> prompts;
  const absl::StatusOr<std::string> text = ReadFile(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return prompts;
  SY_RETURN_IF_ERROR(text.status());
  SY_ASSIGN_OR_RETURN(const router::ChatFormat format,
                      router::DetectChatFormat(model_dir));
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<text::Tokenizer> tokenizer,
                      text::Tokenizer::Load(model_dir));
  int64_t line_number = 0;
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    ++line_number;
    if (line.empty()) continue;
    const absl::StatusOr<std::string> rendered = Rendered(format, line);
    if (!rendered.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("line ", line_number, " of ", path, ": ",
                       std::string(rendered.status().message())));
    }
    prompts.push_back(tokenizer->Encode(*rendered));
  }
  return prompts;
}

}  // namespace switchyard::bench
