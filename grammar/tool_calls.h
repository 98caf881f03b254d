// Tool calls as Qwen's models write them, with arguments that follow the tool's
// schema.
//
//   JSON: <tool_call>\n{"name": "f", "arguments": {...}}\n</tool_call>
//   XML:  <tool_call>\n<function=f>\n<parameter=p>\nvalue\n</parameter>\n
//         </function>\n</tool_call>
//
// What stands in an XML parameter: xml_parameters.h.
//
// Above: compile.h. Below: json_schema.h, xml_parameters.h.

#ifndef SWITCHYARD_GRAMMAR_TOOL_CALLS_H_
#define SWITCHYARD_GRAMMAR_TOOL_CALLS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "base/json.h"
#include "grammar/budget.h"
#include "grammar/expression.h"

namespace switchyard::grammar {

struct ToolCallOptions {
  enum class Format { kJson, kXml };
  struct Tool {
    std::string name;
    Json parameters;      // a schema, or null
    bool strict = false;  // what its schema says and cannot be promised is an
                          // error
  };
  Format format = Format::kJson;
  std::vector<Tool> tools;  // >= 1
  // Text around calls, and no call at all. Else: calls and nothing but.
  bool free_text = false;
  // If not absent: calls, or an answer of this schema.
  absl::optional<Json> answer;
  bool parallel = true;  // several calls

  // {"format": "json" | "xml", "tools": [{"name", "parameters", "strict"}],
  //  "free_text": bool, "parallel": bool, "answer": SCHEMA}. INVALID_ARGUMENT:
  //  not that.
  static absl::StatusOr<ToolCallOptions> FromJson(const Json& json);
};

// INVALID_ARGUMENT names the tool, and the place in its schema.
absl::StatusOr<Expression> ToolCalls(const ToolCallOptions& options,
                                     Grammar* grammar, Budget* budget);

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_TOOL_CALLS_H_
