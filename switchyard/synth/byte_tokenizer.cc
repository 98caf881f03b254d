#include "switchyard/synth/byte_tokenizer.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "base/json.h"

namespace switchyard {
namespace {

constexpr int kBytes = 256;
constexpr int kControlTokens = 3;
constexpr int64_t kQwenVocabulary = 151936;
constexpr int64_t kQwenFirstControl = 151643;

// The template of the Instruct models without its system prompt for tools, in
// the words by which its format is known.
constexpr char kChatTemplate[] = R"({%- if tools %}
{{- '<|im_start|>system\n# Tools\n<tools>' }}
{%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\n</tools>\n{"name": <function-name>, "arguments": <args-json-object>}<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}
{{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\n' }}
{%- endif %}
)";

void AppendUtf8(int code_point, std::string* text) {
  if (code_point < 0x80) {
    *text += static_cast<char>(code_point);
  } else {  // at most U+0143 here
    *text += static_cast<char>(0xC0 | code_point >> 6);
    *text += static_cast<char>(0x80 | (code_point & 0x3F));
  }
}

// GPT-2's names of bytes: printable ones stand for themselves, the others for
// the characters from U+0100 on, in order.
std::string NameOfByte(int byte) {
  const auto printable = [](int b) {
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  int code_point = byte;
  if (!printable(byte)) {
    code_point = 0x100;
    for (int b = 0; b < byte; ++b) code_point += printable(b) ? 0 : 1;
  }
  std::string name;
  AppendUtf8(code_point, &name);
  return name;
}

}  // namespace

absl::StatusOr<std::vector<model::CompanionFile>> ByteTokenizerFiles(
    int64_t vocab_size) {
  if (vocab_size < kBytes + kControlTokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "vocab_size ", vocab_size, ": a tokenizer of bytes needs ",
        kBytes + kControlTokens, " ids; bring another with --tokenizer"));
  }
  const int64_t first_control = vocab_size == kQwenVocabulary
                                    ? kQwenFirstControl
                                    : vocab_size - kControlTokens;
  // Without the search for a key that is never there.
  Json::object_t vocab;
  for (int64_t id = 0; id < vocab_size; ++id) {
    if (id >= first_control && id < first_control + kControlTokens) continue;
    vocab.emplace_back(id < kBytes ? NameOfByte(static_cast<int>(id))
                                   : absl::StrCat("~", id, "~"),
                       id);
  }
  Json added = Json::object();
  int64_t id = first_control;
  for (const char* text : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    added[absl::StrCat(id++)] = {{"content", text},      {"lstrip", false},
                                 {"normalized", false},  {"rstrip", false},
                                 {"single_word", false}, {"special", true}};
  }
  const Json tokenizer_config = {{"add_bos_token", false},
                                 {"add_prefix_space", false},
                                 {"added_tokens_decoder", std::move(added)},
                                 {"bos_token", nullptr},
                                 {"eos_token", "<|im_end|>"},
                                 {"tokenizer_class", "Qwen2Tokenizer"}};
  const Json generation_config = {
      {"do_sample", true},
      {"eos_token_id", {first_control + 2, first_control}},
      {"temperature", 0.7},
      {"top_k", 20},
      {"top_p", 0.8}};
  return std::vector<model::CompanionFile>{
      {"vocab.json", DumpJson(Json(std::move(vocab)))},
      {"merges.txt", "#version: 0.2\n"},
      {"tokenizer_config.json", DumpJson(tokenizer_config)},
      {"chat_template.jinja", kChatTemplate},
      {"generation_config.json", DumpJson(generation_config)}};
}

}  // namespace switchyard
