#include "grammar/xml_parameters.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "grammar/code_points.h"
#include "grammar/free_text.h"

namespace switchyard::grammar {
namespace {

constexpr char kBegin[] = "<parameter=";
constexpr char kEnd[] = "</parameter>";

// Whether a value may be a string: of a schema without references at its top.
bool MayBeString(const Json& schema) {
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

bool IsRequired(const Json& object, absl::string_view name) {
  const auto required = object.find("required");
  if (required == object.end() || !required->is_array()) return false;
  return std::any_of(
      required->begin(), required->end(), [name](const Json& one) {
        return one.is_string() && one.get_ref<const std::string&>() == name;
      });
}

}  // namespace

XmlParameters::Marks XmlParameters::MarksOf(SchemaCompiler* compiler) const {
  if (layout_ == Layout::kLines) {
    return {">\n", absl::StrCat("\n", kEnd, "\n"), Empty()};
  }
  return {">", kEnd, compiler->Whitespace()};
}

absl::StatusOr<Expression> XmlParameters::Compile(SchemaCompiler* compiler,
                                                  const Json& schema,
                                                  const std::string& path) {
  // Tells of what is not supported, and is the root for references.
  SY_RETURN_IF_ERROR(compiler->Compile(schema, path).status());
  SY_ASSIGN_OR_RETURN(const Json object, compiler->Resolved(schema, path));
  const Marks marks = MarksOf(compiler);
  std::vector<Expression> parts = {marks.gap};
  const Json none = Json::object();
  const Json& properties =
      object.contains("properties") && object["properties"].is_object()
          ? object["properties"]
          : none;
  for (const auto& [name, value] : properties.items()) {
    SY_ASSIGN_OR_RETURN(Expression text,
                        Value(compiler, value, marks,
                              absl::StrCat(path, "/properties/", name)));
    Expression parameter =
        Sequence({Literal(absl::StrCat(kBegin, name, marks.behind_name)),
                  std::move(text), Literal(marks.behind_value), marks.gap});
    parts.push_back(IsRequired(object, name) ? std::move(parameter)
                                             : Optional(std::move(parameter)));
  }
  if (properties.empty() &&
      object.value("additionalProperties", Json(true)) != false) {
    SY_ASSIGN_OR_RETURN(Expression open, Open(marks));
    parts.push_back(std::move(open));
  }
  return Sequence(std::move(parts));
}

absl::StatusOr<Expression> XmlParameters::Open(const Marks& marks) {
  SY_ASSIGN_OR_RETURN(const Expression text, PlainText(nullptr));
  const Expression name_character =
      Choice({Byte('a', 'z'), Byte('A', 'Z'), Byte('0', '9'), Literal("_"),
              Literal("-"), Literal(".")});
  return Repeat(Sequence({Literal(kBegin), Repeat(name_character, 1, 64),
                          Literal(marks.behind_name), text,
                          Literal(marks.behind_value), marks.gap}),
                0, -1);
}

absl::StatusOr<Expression> XmlParameters::Value(SchemaCompiler* compiler,
                                                const Json& value,
                                                const Marks& marks,
                                                const std::string& path) {
  const auto spaced = [&marks](Expression what) {
    return Sequence({marks.gap, std::move(what), marks.gap});
  };
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
    return spaced(Choice(std::move(options)));
  }
  const bool untyped = !schema.contains("type") && !schema.contains("anyOf") &&
                       !schema.contains("oneOf");
  if (untyped && !schema.contains("properties") && !schema.contains("items")) {
    return PlainText(nullptr);
  }
  if (!MayBeString(schema)) {
    SY_ASSIGN_OR_RETURN(Expression json, compiler->CompilePart(value, path));
    return spaced(std::move(json));
  }
  if (schema.value("type", Json()) != "string") return PlainText(nullptr);
  SY_ASSIGN_OR_RETURN(const std::shared_ptr<const Dfa> contents,
                      compiler->StringContent(schema, path, TextForm::kRaw));
  return PlainText(contents);
}

absl::StatusOr<Expression> XmlParameters::PlainText(
    const std::shared_ptr<const Dfa>& contents) {
  if (plain_ == nullptr) {
    SY_ASSIGN_OR_RETURN(
        const Dfa utf8,
        BuildDfa(Repeat(OneOf(CodePointSet::All(), TextForm::kRaw), 0, -1),
                 budget_));
    SY_ASSIGN_OR_RETURN(const Dfa free_text,
                        TextWithout({"</parameter", "<parameter=", "</function",
                                     "</tool_call", "<tool_call"},
                                    budget_));
    SY_ASSIGN_OR_RETURN(Dfa plain,
                        Combine(utf8, free_text, Combination::kBoth, budget_));
    plain_ = std::make_shared<const Dfa>(std::move(plain));
  }
  if (contents == nullptr) return Automaton(plain_);
  SY_ASSIGN_OR_RETURN(Dfa both,
                      Combine(*contents, *plain_, Combination::kBoth, budget_));
  return Automaton(std::make_shared<const Dfa>(std::move(both)));
}

}  // namespace switchyard::grammar
