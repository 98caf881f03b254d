#include "grammar/tool_calls.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "grammar/dfa.h"
#include "grammar/free_text.h"
#include "grammar/json_schema.h"

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
        lenient_(grammar, budget, SchemaCompiler::Mode::kLenient) {}

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
    SchemaCompiler& compiler = CompilerOf(tool);
    const Json schema = ParametersOf(tool);
    // Tells of what is not supported, and is the root for references.
    SY_RETURN_IF_ERROR(compiler.Compile(schema, "parameters").status());
    SY_ASSIGN_OR_RETURN(const Json object,
                        compiler.Resolved(schema, "parameters"));
    std::vector<Expression> parts = {
        Literal(absl::StrCat("\n<function=", tool.name, ">\n"))};
    const Json none = Json::object();
    const Json& properties =
        object.contains("properties") && object["properties"].is_object()
            ? object["properties"]
            : none;
    std::vector<std::string> required;
    if (object.contains("required") && object["required"].is_array()) {
      for (const Json& name : object["required"]) {
        if (name.is_string()) required.push_back(name.get<std::string>());
      }
    }
    for (const auto& [name, value] : properties.items()) {
      SY_ASSIGN_OR_RETURN(
          Expression parameter,
          Parameter(&compiler, name, value,
                    absl::StrCat("parameters/properties/", name)));
      const bool is_required =
          std::find(required.begin(), required.end(), name) != required.end();
      parts.push_back(is_required ? std::move(parameter)
                                  : Optional(std::move(parameter)));
    }
    // What is open has names and texts of any kind.
    const bool open = properties.empty() &&
                      object.value("additionalProperties", Json(true)) != false;
    if (open) {
      SY_ASSIGN_OR_RETURN(const Expression text, PlainText(nullptr));
      const Expression name_character =
          Choice({Byte('a', 'z'), Byte('A', 'Z'), Byte('0', '9'), Literal("_"),
                  Literal("-"), Literal(".")});
      parts.push_back(Repeat(
          Sequence({Literal("<parameter="), Repeat(name_character, 1, 64),
                    Literal(">\n"), text, Literal("\n</parameter>\n")}),
          0, -1));
    }
    parts.push_back(Literal("</function>\n"));
    return Sequence(std::move(parts));
  }

  // Text in a parameter, of these contents; null: any.
  absl::StatusOr<Expression> PlainText(
      const std::shared_ptr<const Dfa>& contents) {
    if (plain_ == nullptr) {
      SY_ASSIGN_OR_RETURN(
          const Dfa utf8,
          BuildDfa(Repeat(OneOf(CodePointSet::All(), TextForm::kRaw), 0, -1),
                   budget_));
      SY_ASSIGN_OR_RETURN(
          const Dfa free_text,
          TextWithout({"</parameter", "<parameter=", "</function",
                       "</tool_call", "<tool_call"},
                      budget_));
      SY_ASSIGN_OR_RETURN(
          Dfa plain, Combine(utf8, free_text, Combination::kBoth, budget_));
      plain_ = std::make_shared<const Dfa>(std::move(plain));
    }
    if (contents == nullptr) return Automaton(plain_);
    SY_ASSIGN_OR_RETURN(
        Dfa both, Combine(*contents, *plain_, Combination::kBoth, budget_));
    return Automaton(std::make_shared<const Dfa>(std::move(both)));
  }

  // Whether a value may be a string: of a schema without references at its top.
  static bool MayBeString(const Json& schema) {
    const auto type = schema.find("type");
    if (type != schema.end()) {
      return *type == "string" ||
             (type->is_array() &&
              std::find(type->begin(), type->end(), "string") != type->end());
    }
    for (const char* keyword : {"anyOf", "oneOf"}) {
      const auto it = schema.find(keyword);
      if (it == schema.end() || !it->is_array()) continue;
      return std::any_of(it->begin(), it->end(), [](const Json& option) {
        return option.is_object() && MayBeString(option);
      });
    }
    return false;
  }

  absl::StatusOr<Expression> Parameter(SchemaCompiler* compiler,
                                       const std::string& name,
                                       const Json& value,
                                       const std::string& path) {
    SY_ASSIGN_OR_RETURN(Expression text, ParameterValue(compiler, value, path));
    return Sequence({Literal(absl::StrCat("<parameter=", name, ">\n")),
                     std::move(text), Literal("\n</parameter>\n")});
  }

  absl::StatusOr<Expression> ParameterValue(SchemaCompiler* compiler,
                                            const Json& value,
                                            const std::string& path) {
    SY_ASSIGN_OR_RETURN(const Json schema, compiler->Resolved(value, path));
    if (!schema.is_object()) return PlainText(nullptr);
    if (schema.contains("enum") || schema.contains("const")) {
      const Json values = schema.contains("enum") && schema["enum"].is_array()
                              ? schema["enum"]
                              : Json::array({schema.value("const", Json())});
      std::vector<Expression> options;
      for (const Json& option : values) {
        options.push_back(option.is_string()
                              ? Literal(option.get_ref<const std::string&>())
                              : compiler->Constant(option));
      }
      return Choice(std::move(options));
    }
    const bool untyped = !schema.contains("type") &&
                         !schema.contains("anyOf") && !schema.contains("oneOf");
    if (untyped && !schema.contains("properties") &&
        !schema.contains("items")) {
      return PlainText(nullptr);
    }
    if (!MayBeString(schema)) return compiler->CompilePart(value, path);
    if (schema.value("type", Json()) != "string") return PlainText(nullptr);
    SY_ASSIGN_OR_RETURN(const std::shared_ptr<const Dfa> contents,
                        compiler->StringContent(schema, path, TextForm::kRaw));
    return PlainText(contents);
  }

  const ToolCallOptions& options_;
  Budget* const budget_;
  SchemaCompiler strict_, lenient_;
  std::shared_ptr<const Dfa> plain_;
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
