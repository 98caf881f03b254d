// The model's text -> reasoning, content and tool calls, whole or as a stream.
//
// Reasoning. Up to the first </think>, without the newlines around it; without
// </think> everything is reasoning. A repeated <think> at its beginning is
// dropped. A <tool_call> within it is talk, and stays in it.
//
// Content. What is neither reasoning nor call. Around calls its white space is
// trimmed: at its end if there was any call, at its beginning if a call came
// first.
//
// JSON calls: <tool_call>{"name": ..., "arguments": {...}}</tool_call>, the end
// tag being optional at the end of the text.
//   * Once a block's name is that of one of the request's tools and its
//     arguments have begun with "{", it is a call for good, and the arguments
//     go out as they come. What is wrong after that is mended: raw control
//     characters and bad escapes in strings are escaped, and arguments that
//     break off (end of the model's text, end tag, a byte that fits nowhere)
//     are closed, a member without a value being dropped. So they are valid
//     JSON, unless the text was cut off. Text behind the break goes to the
//     content.
//   * A block that is not that (another name, no tools, arguments before the
//     name) is held until it is complete. If it is no valid call, it stays in
//     the content.
// Arguments that are missing, null or "" become {}; JSON text in a string is
// taken out of it; anything else that is not an object makes no call.
//
// XML calls:
// <tool_call><function=NAME><parameter=KEY>VALUE</parameter>...</function>
// </tool_call>. Without the outer tag, NAME must be one of the request's tools,
// if it has any. One newline at each end of VALUE is not part of it; its type
// is the schema's. Strings go out as they come, other types when they are
// complete.
//   * A forgotten </parameter> is made up for at the beginning of a line,
//     before <parameter=KEY> of another declared parameter, before
//     </tool_call>, and before </function> with </tool_call> or the end of the
//     text behind it.
//   * At the end of the text an unfinished parameter is dropped, except for a
//     string that has begun to go out: that ends where it is.
//   * Text between parameters goes to the content.
//
// Cut off (TextEnd::kCutOff), a call has its arguments as far as they were
// generated: nothing is closed, so they are no JSON. A JSON call of one of the
// request's tools that has a name by then is one, without arguments.

#ifndef SWITCHYARD_ROUTER_TEXT_OUTPUT_PARSER_H_
#define SWITCHYARD_ROUTER_TEXT_OUTPUT_PARSER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "base/json.h"

namespace switchyard::router {

enum class ToolCallSyntax { kNone, kJson, kXml };

struct OutputSyntax {
  ToolCallSyntax tool_calls =
      ToolCallSyntax::kNone;  // kNone: calls stay in the content
  // Text before </think> is reasoning: because the prompt opened <think>
  // (kOpened), or only if the output itself begins with <think> (kMaybe).
  enum class Thinking { kNone, kMaybe, kOpened } thinking = Thinking::kNone;
  Json tools;  // the request's, for the types of XML parameters; or null
};

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON text
};

struct ParsedMessage {
  std::string reasoning;
  std::string content;
  std::vector<ToolCall> tool_calls;
};

// The whole text at once. Text is valid UTF-8.
ParsedMessage ParseOutput(const OutputSyntax& syntax, absl::string_view text);

// What one more piece of text adds. Concatenating all deltas gives the same as
// ParseOutput of the concatenated text, wherever it was cut (also within a
// character).
struct OutputDelta {
  std::string reasoning;
  std::string content;
  struct CallDelta {
    int index = 0;
    // Set in the call's first delta, once.
    absl::optional<std::string> name;
    std::string arguments;  // more of the JSON text
  };
  std::vector<CallDelta> tool_calls;

  bool empty() const {
    return reasoning.empty() && content.empty() && tool_calls.empty();
  }
};

// Why no more text comes.
enum class TextEnd {
  kByModel,  // it ended its text there
  kCutOff,   // by a limit or a stop string: it would have gone on
};

// Not thread-safe. Holds back only text whose meaning is not yet certain.
class OutputParser {
 public:
  static std::unique_ptr<OutputParser> Create(OutputSyntax syntax);
  virtual ~OutputParser() = default;
  virtual OutputDelta Add(absl::string_view text) = 0;
  // No more text will come.
  virtual OutputDelta Finish(TextEnd end) = 0;
  // The last call's arguments were cut off. Known behind Finish().
  virtual bool call_cut_off() const = 0;
  // True while the text is reasoning (for usage.reasoning_tokens).
  virtual bool in_reasoning() const = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TEXT_OUTPUT_PARSER_H_
