// `switchyard tokenize`, `render` and `parse`: the text layer on JSON lines,
// for people who compare it with another implementation.

#ifndef SWITCHYARD_SWITCHYARD_TEXT_TEXT_COMMANDS_H_
#define SWITCHYARD_SWITCHYARD_TEXT_TEXT_COMMANDS_H_

#include <istream>
#include <ostream>
#include <string>

#include "absl/status/status.h"

namespace switchyard {

// All three answer each line with one line, blank ones excepted. A line that is
// wrong gives {"error": reason}, and the next one is read; the status at the
// end is INVALID_ARGUMENT then, and tells how many lines were wrong and which
// was the first.

struct TokenizeOptions {
  std::string model_dir;
  bool decode = false;
  bool skip_special = false;  // decode: leave special tokens out
};
// {"text"} -> {"ids"}; decode: {"ids"} -> {"text"}. Errors of the tokenizer's
// files as Tokenizer::Load's, before any line is read.
absl::Status RunTokenize(const TokenizeOptions& options, std::istream& in,
                         std::ostream& out);

struct RenderOptions {
  std::string format;  // a name of router::ParseChatFormat
};
// {"messages", "tools", "kwargs"}, the latter two optional -> {"rendered"}.
absl::Status RunRender(const RenderOptions& options, std::istream& in,
                       std::ostream& out);

struct ParseOptions {
  // json or xml: calls of that syntax, no reasoning. think: the prompt opened
  // <think>; nothink: the output may open it; both with JSON calls.
  std::string format;
};
// {"text", "tools"}, tools optional -> {"reasoning", "content", "tool_calls"},
// each call as {"name", "arguments"} with arguments as an object. "reasoning"
// only for think and nothink.
absl::Status RunParse(const ParseOptions& options, std::istream& in,
                      std::ostream& out);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_TEXT_TEXT_COMMANDS_H_
