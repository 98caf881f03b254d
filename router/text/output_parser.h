// The model's text -> reasoning, content and tool calls, whole or as a stream.

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
  ToolCallSyntax tool_calls = ToolCallSyntax::kNone;  // kNone: calls stay in the content
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

// The whole text at once.
ParsedMessage ParseOutput(const OutputSyntax& syntax, absl::string_view text);

// What one more piece of text adds. Concatenating all deltas gives the same as
// ParseOutput of the concatenated text, wherever it was cut.
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

// Not thread-safe. Holds back only text whose meaning is not yet certain.
class OutputParser {
 public:
  static std::unique_ptr<OutputParser> Create(OutputSyntax syntax);
  virtual ~OutputParser() = default;
  virtual OutputDelta Add(absl::string_view text) = 0;
  // No more text will come.
  virtual OutputDelta Finish() = 0;
  // True while the text is reasoning (for usage.reasoning_tokens).
  virtual bool in_reasoning() const = 0;
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TEXT_OUTPUT_PARSER_H_
