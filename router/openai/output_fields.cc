#include "router/openai/output_fields.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "router/openai/errors.h"

namespace switchyard::router {
namespace {

using Kind = OutputFormat::Kind;

constexpr char kAnyObject[] = R"({"type":"object"})";
// Choices of one request; each is a branch of an expression.
constexpr size_t kMaxChoices = 10'000;

// An absent field, in any of the spellings that clients have for it.
bool IsUnset(const Json& value) {
  return value.is_null() || value == false ||
         (value.is_string() && value.get_ref<const std::string&>().empty());
}

// The formats of a request: one at most.
class Formats {
 public:
  // `reader` is that of the request; not owned.
  explicit Formats(const FieldReader* reader) : reader_(*reader) {}

  absl::Status Add(const std::string& path, Kind kind, std::string text) {
    if (format_) {
      return Error(path, absl::StrCat("cannot stand beside ", path_,
                                      ": an output has one format"));
    }
    path_ = reader_.PathOf(path);
    format_ = OutputFormat{.kind = kind, .text = std::move(text)};
    return absl::OkStatus();
  }

  // A schema, or its text.
  absl::Status AddSchema(const std::string& path, const Json& value) {
    if (value.is_string()) {
      return Add(path, Kind::kJsonSchema, value.get<std::string>());
    }
    if (!value.is_object() && !value.is_boolean()) {
      return Error(path, "must be a JSON schema");
    }
    return Add(path, Kind::kJsonSchema, DumpJson(value));
  }

  absl::Status AddText(const std::string& path, Kind kind, const Json& value) {
    if (!value.is_string()) return Error(path, "must be a string");
    return Add(path, kind, value.get<std::string>());
  }

  // An object, or its text. What is in it the worker looks at.
  absl::Status AddStructuralTag(const std::string& path, const Json& value) {
    Json tag = value;
    if (value.is_string()) {
      absl::StatusOr<Json> parsed = ParseJson(value.get<std::string>());
      if (!parsed.ok()) {
        return Error(path,
                     absl::StrCat("is no JSON: ",
                                  std::string(parsed.status().message())));
      }
      tag = *std::move(parsed);
    }
    const auto has = [&](const char* name) {
      return tag.contains(name) && !tag[name].is_null();
    };
    if (!tag.is_object() ||
        !(has("format") || (has("structures") && has("triggers")))) {
      return Error(path,
                   "must be an object with a format, or with structures and "
                   "triggers");
    }
    return Add(path, Kind::kStructuralTag, DumpJson(tag));
  }

  absl::Status AddChoice(const std::string& path, const Json& value) {
    if (!value.is_array() || value.empty() || value.size() > kMaxChoices) {
      return Error(path, absl::StrCat("must be an array of 1 to ", kMaxChoices,
                                      " strings"));
    }
    std::string expression;
    for (const Json& choice : value) {
      if (!choice.is_string()) {
        return Error(path, "must be an array of strings");
      }
      if (!expression.empty()) expression += '|';
      expression += "(?:";
      for (const char c : choice.get_ref<const std::string&>()) {
        // Letters and digits have meanings behind a backslash, bytes of longer
        // characters need none.
        const unsigned char byte = static_cast<unsigned char>(c);
        if (absl::ascii_ispunct(byte)) expression += '\\';
        expression += c;
      }
      expression += ')';
    }
    return Add(path, Kind::kRegex, std::move(expression));
  }

  absl::optional<OutputFormat> Take() { return std::move(format_); }

  // `path` within the request.
  absl::Status Error(const std::string& path, absl::string_view what) const {
    return ParamError(reader_.PathOf(path), what);
  }

 private:
  const FieldReader& reader_;
  std::string path_;
  absl::optional<OutputFormat> format_;
};

absl::Status AddResponseFormat(const Json& format, Formats* out) {
  if (!format.is_object() || !format.value("type", Json()).is_string()) {
    return out->Error("response_format",
                      "must be an object with a string \"type\"");
  }
  const std::string type = format["type"].get<std::string>();
  const auto find = [&](const char* name) {
    return format.contains(name) ? format[name] : Json();
  };
  if (type == "text") return absl::OkStatus();
  if (type == "json_object") {
    // Some clients give a schema here.
    const Json schema = find("schema");
    return IsUnset(schema)
               ? out->Add("response_format", Kind::kJsonSchema, kAnyObject)
               : out->AddSchema("response_format.schema", schema);
  }
  if (type == "json_schema") {
    // Chat's spelling nests the schema; Responses' does not.
    const Json nested = find("json_schema");
    if (nested.is_object() && nested.contains("schema")) {
      return out->AddSchema("response_format.json_schema.schema",
                            nested["schema"]);
    }
    if (nested.is_null() && format.contains("schema")) {
      return out->AddSchema("response_format.schema", format["schema"]);
    }
    return out->Error("response_format.json_schema",
                      "must be an object with a \"schema\"");
  }
  if (type == "regex" || type == "ebnf" || type == "grammar") {
    const std::string name = type == "regex" ? "pattern" : type;
    Json value = find(name.c_str());
    if (value.is_null()) value = find(type.c_str());
    return out->AddText(absl::StrCat("response_format.", name),
                        type == "regex" ? Kind::kRegex : Kind::kEbnf, value);
  }
  if (type == "structural_tag") {
    return out->AddStructuralTag("response_format", format);
  }
  return out->Error("response_format.type",
                    "must be text, json_object, json_schema, regex, grammar or "
                    "structural_tag");
}

absl::Status AddStructuredOutputs(const Json& value, Formats* out) {
  if (!value.is_object()) {
    return out->Error("structured_outputs", "must be an object");
  }
  for (const auto& [name, inner] : value.items()) {
    if (IsUnset(inner)) continue;
    const std::string path = absl::StrCat("structured_outputs.", name);
    if (name == "json") {
      SY_RETURN_IF_ERROR(out->AddSchema(path, inner));
    } else if (name == "regex") {
      SY_RETURN_IF_ERROR(out->AddText(path, Kind::kRegex, inner));
    } else if (name == "choice") {
      SY_RETURN_IF_ERROR(out->AddChoice(path, inner));
    } else if (name == "grammar") {
      SY_RETURN_IF_ERROR(out->AddText(path, Kind::kEbnf, inner));
    } else if (name == "json_object") {
      SY_RETURN_IF_ERROR(out->Add(path, Kind::kJsonSchema, kAnyObject));
    } else if (name == "structural_tag") {
      SY_RETURN_IF_ERROR(out->AddStructuralTag(path, inner));
    }
    // Others say how another server is to go about it.
  }
  return absl::OkStatus();
}

// {"type": "function", "function": {...}}, as NormaliseTools leaves them.
const Json& Function(const Json& tool) {
  return tool.contains("function") ? tool["function"] : tool;
}

}  // namespace

absl::StatusOr<absl::optional<OutputFormat>> ReadOutputFormat(
    FieldReader* reader) {
  Formats formats(reader);
  const auto find = [&](const char* name) -> const Json* {
    const Json* value = reader->Find(name);
    return value == nullptr || IsUnset(*value) ? nullptr : value;
  };
  if (const Json* value = find("response_format")) {
    SY_RETURN_IF_ERROR(AddResponseFormat(*value, &formats));
  }
  for (const char* name : {"json_schema", "guided_json"}) {
    if (const Json* value = find(name)) {
      SY_RETURN_IF_ERROR(formats.AddSchema(name, *value));
    }
  }
  for (const char* name : {"regex", "guided_regex"}) {
    if (const Json* value = find(name)) {
      SY_RETURN_IF_ERROR(formats.AddText(name, Kind::kRegex, *value));
    }
  }
  for (const char* name : {"ebnf", "guided_grammar"}) {
    if (const Json* value = find(name)) {
      SY_RETURN_IF_ERROR(formats.AddText(name, Kind::kEbnf, *value));
    }
  }
  if (const Json* value = find("guided_choice");
      value != nullptr && !(value->is_array() && value->empty())) {
    SY_RETURN_IF_ERROR(formats.AddChoice("guided_choice", *value));
  }
  if (const Json* value = find("structural_tag")) {
    SY_RETURN_IF_ERROR(formats.AddStructuralTag("structural_tag", *value));
  }
  if (const Json* value = find("structured_outputs")) {
    SY_RETURN_IF_ERROR(AddStructuredOutputs(*value, &formats));
  }
  return formats.Take();
}

absl::StatusOr<ToolChoice> ReadToolChoice(FieldReader* reader,
                                          const Json& tools) {
  ToolChoice choice;
  const Json* const value = reader->Find("tool_choice");
  if (value == nullptr || *value == "auto") return choice;
  if (*value == "none") {
    choice.kind = ToolChoice::Kind::kNone;
    return choice;
  }
  if (*value == "required" || *value == "any") {
    choice.kind = ToolChoice::Kind::kRequired;
  } else {
    const Json name =
        !value->is_object() ? Json()
        : value->contains("function") && (*value)["function"].is_object()
            ? (*value)["function"].value("name", Json())
            : value->value("name", Json());
    if (!name.is_string()) {
      return ParamError("tool_choice",
                        "must be none, auto, required, or an object that "
                        "names a function");
    }
    choice.kind = ToolChoice::Kind::kNamed;
    choice.name = name.get<std::string>();
  }
  if (tools.is_null() || tools.empty()) {
    return ParamError("tool_choice", "asks for a call, but there are no tools");
  }
  const bool known =
      choice.kind == ToolChoice::Kind::kRequired ||
      std::any_of(tools.begin(), tools.end(), [&](const Json& tool) {
        return Function(tool).value("name", Json()) == choice.name;
      });
  if (!known) {
    return ParamError("tool_choice",
                      absl::StrCat("there is no tool named ", choice.name));
  }
  return choice;
}

absl::StatusOr<absl::optional<OutputFormat>> FormatWithTools(
    const ToolChoice& choice, const Json& tools, bool xml, bool parallel,
    absl::optional<OutputFormat> answer) {
  const bool may_call =
      !tools.is_null() && choice.kind != ToolChoice::Kind::kNone;
  if (!may_call) return answer;
  const bool forced = choice.kind != ToolChoice::Kind::kAuto;
  bool strict = false;
  Json list = Json::array();
  for (const Json& tool : tools) {
    const Json& function = Function(tool);
    const bool is_strict = function.value("strict", Json(false)) == true;
    strict = strict || is_strict;
    if (choice.kind == ToolChoice::Kind::kNamed &&
        function.value("name", Json()) != choice.name) {
      continue;
    }
    list.push_back({{"name", function.value("name", Json())},
                    {"parameters", function.value("parameters", Json())},
                    {"strict", is_strict}});
  }
  if (!forced && !strict && !answer) return answer;
  if (!forced && !strict && answer->kind == Kind::kStructuralTag) return answer;
  Json calls = {{"format", xml ? "xml" : "json"}, {"tools", std::move(list)}};
  calls["parallel"] = parallel && choice.kind != ToolChoice::Kind::kNamed;
  if (!forced && answer) {
    absl::StatusOr<Json> schema = answer->kind == Kind::kJsonSchema
                                      ? ParseJson(answer->text)
                                      : absl::StatusOr<Json>(Json());
    if (!schema.ok() || answer->kind != Kind::kJsonSchema) {
      return ParamError("tools",
                        "cannot stand beside this output format: give a JSON "
                        "schema, or tool_choice none");
    }
    calls["answer"] = *std::move(schema);
  } else if (!forced) {
    calls["free_text"] = true;
  }
  OutputFormat format;
  format.kind = Kind::kToolCalls;
  format.text = DumpJson(calls);
  return absl::optional<OutputFormat>(std::move(format));
}

}  // namespace switchyard::router
