// What an output must look like, in the words of OpenAI's, SGLang's and vLLM's
// clients: the fields of a request that become a grammar.
//
// Above: request.h, and other APIs' requests. Below: field_reader.h. The
// grammar itself is compiled, and checked, by the attention worker.

#ifndef SWITCHYARD_ROUTER_OPENAI_OUTPUT_FIELDS_H_
#define SWITCHYARD_ROUTER_OPENAI_OUTPUT_FIELDS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "base/json.h"
#include "router/client/attention_client.h"
#include "router/openai/field_reader.h"

namespace switchyard::router {

// response_format; SGLang's regex, ebnf, json_schema and structural_tag; vLLM's
// guided_json, guided_regex, guided_choice, guided_grammar and
// structured_outputs. Absent if the request has none of them. INVALID_ARGUMENT
// names the field: of an unknown kind, or beside another one.
absl::StatusOr<absl::optional<OutputFormat>> ReadOutputFormat(
    FieldReader* reader);

struct ToolChoice {
  enum class Kind { kAuto, kNone, kRequired, kNamed };
  Kind kind = Kind::kAuto;
  std::string name;  // of kNamed
};

// tool_choice, in OpenAI's spellings; kNamed's name is that of one of `tools`
// (an array of normalised tools, or null).
absl::StatusOr<ToolChoice> ReadToolChoice(FieldReader* reader,
                                          const Json& tools);

// The format of an answer with tools: `xml` or JSON calls of what is chosen, so
// formed and with arguments by their schemas. `answer` is what else the request
// asks for: with kAuto the output is that or calls. Absent: nothing to hold the
// output to (kNone; kAuto without strict tools and without `answer`).
// A structural tag stands beside tools that may be called as they are: it says
// itself where calls stand. INVALID_ARGUMENT: `answer` is of a kind that cannot
// stand beside tools.
absl::StatusOr<absl::optional<OutputFormat>> FormatWithTools(
    const ToolChoice& choice, const Json& tools, bool xml, bool parallel,
    absl::optional<OutputFormat> answer);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_OUTPUT_FIELDS_H_
