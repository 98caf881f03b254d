#include "grammar/tool_calls.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "grammar/dfa.h"
#include "grammar/free_text.h"
#include "grammar/json_schema.h"
#include "grammar/xml_parameters.h"

namespace switchyard::grammar {
namespace {

constexpr char kBegin[] = "<tool_call>";
constexpr char kEnd[] = "</tool_call>";

Json ParametersOf(const ToolCallOptions::Tool& tool) {
  if (!tool.parameters.is_object()) return Json{{"type", "object"}};
  Json schema = tool.parameters;
  for (const char* keyword : {"type", "$ref", "allOf", "anyOf", "oneOf"}) {
    if (schema.contains(keyword)) return schema;
  }
  schema["type"] = "object";
  return schema;
}

class Builder {
 public:
  Builder(const ToolCallOptions& options, Grammar* grammar, Budget* budget)
      : options_(options),
        budget_(budget),
        strict_(grammar, budget, SchemaCompiler::Mode::kStrict),
        lenient_(grammar, budget, SchemaCompiler::Mode::kLenient),
        xml_(budget, XmlParameters::Layout::kLines) {}

  absl::StatusOr<Expression> Build(Grammar* grammar) {
    std::vector<Expression> calls;
    for (const ToolCallOptions::Tool& tool : options_.tools) {
      absl::StatusOr<Expression> call =
          options_.format == ToolCallOptions::Format::kJson ? JsonCall(tool)
                                                            : XmlCall(tool);
      if (!call.ok()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "tool ", tool.name, ": ", std::string(call.status().message())));
      }
      calls.push_back(*std::move(call));
    }
    const RuleId any_call = grammar->AddRule();
    grammar->rules[any_call] =
        Sequence({Literal(kBegin), Choice(std::move(calls)), Literal(kEnd)});
    if (options_.free_text) {
      SY_ASSIGN_OR_RETURN(Dfa free_text, TextWithout({kBegin}, budget_));
      const Expression text =
          Automaton(std::make_shared<const Dfa>(std::move(free_text)));
      return Sequence({text, Repeat(Sequence({Rule(any_call), text}), 0,
                                    options_.parallel ? -1 : 1)});
    }
    const Expression several = Sequence(
        {Rule(any_call), Repeat(Sequence({Literal("\n"), Rule(any_call)}), 0,
                                options_.parallel ? -1 : 0)});
    if (!options_.answer) return several;
    SY_ASSIGN_OR_RETURN(Expression answer,
                        strict_.Compile(*options_.answer, "#"));
    return Choice({several, std::move(answer)});
  }

 private:
  SchemaCompiler& CompilerOf(const ToolCallOptions::Tool& tool) {
    return tool.strict ? strict_ : lenient_;
  }

  absl::StatusOr<Expression> JsonCall(const ToolCallOptions::Tool& tool) {
    SchemaCompiler& compiler = CompilerOf(tool);
    const Expression ws = compiler.Whitespace();
    const Json schema = ParametersOf(tool);
    SY_ASSIGN_OR_RETURN(Expression arguments,
                        compiler.Compile(schema, "parameters"));
    return Sequence({ws, Literal("{"), ws, Literal("\"name\":"), ws,
                     compiler.Constant(tool.name), Literal(","), ws,
                     Literal("\"arguments\":"), ws, std::move(arguments), ws,
                     Literal("}"), ws});
  }

  absl::StatusOr<Expression> XmlCall(const ToolCallOptions::Tool& tool) {
    SY_ASSIGN_OR_RETURN(
        Expression parameters,
        xml_.Compile(&CompilerOf(tool), ParametersOf(tool), "parameters"));
    return Sequence({Literal(absl::StrCat("\n<function=", tool.name, ">\n")),
                     std::move(parameters), Literal("</function>\n")});
  }

  const ToolCallOptions& options_;
  Budget* const budget_;
  SchemaCompiler strict_, lenient_;
  XmlParameters xml_;
};

}  // namespace

absl::StatusOr<ToolCallOptions> ToolCallOptions::FromJson(const Json& json) {
  ToolCallOptions options;
  const auto tools = json.is_object() ? json.find("tools") : json.end();
  if (!json.is_object() || tools == json.end() || !tools->is_array() ||
      tools->empty()) {
    return absl::InvalidArgumentError("tool calls: no list of tools");
  }
  const Json format = json.value("format", Json());
  if (format != "json" && format != "xml") {
    return absl::InvalidArgumentError("tool calls: format is json or xml");
  }
  options.format = format == "json" ? Format::kJson : Format::kXml;
  options.free_text = json.value("free_text", Json(false)) == true;
  options.parallel = json.value("parallel", Json(true)) == true;
  if (json.contains("answer")) options.answer = json["answer"];
  for (const Json& tool : *tools) {
    if (!tool.is_object() || !tool.value("name", Json()).is_string()) {
      return absl::InvalidArgumentError("tool calls: a tool without a name");
    }
    options.tools.push_back({tool["name"].get<std::string>(),
                             tool.value("parameters", Json()),
                             tool.value("strict", Json(false)) == true});
  }
  return options;
}

absl::StatusOr<Expression> ToolCalls(const ToolCallOptions& options,
                                     Grammar* grammar, Budget* budget) {
  return Builder(options, grammar, budget).Build(grammar);
}

}  // namespace switchyard::grammar
