// SchemaCompiler: from any schema to its kinds of values.

#include <algorithm>
#include <array>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "grammar/code_points.h"
#include "grammar/json_schema.h"
#include "grammar/numbers.h"
#include "grammar/schema_merge.h"

namespace switchyard::grammar {
namespace {

constexpr int kMaxSchemaDepth = 64;
constexpr int kMaxReferences = 32;

// They would change what is valid, and are not promised.
constexpr const char* kUnsupported[] = {
    "not",           "if",
    "then",          "else",
    "contains",      "minContains",
    "maxContains",   "dependentRequired",
    "dependencies",  "dependentSchemas",
    "$dynamicRef",   "$recursiveRef",
    "uniqueItems",   "unevaluatedItems",
    "contentSchema", "unevaluatedProperties"};

// Keywords that say what one type looks like.
struct TypeKeyword {
  const char* keyword;
  const char* type;
};
constexpr TypeKeyword kTypeKeywords[] = {{"properties", "object"},
                                         {"required", "object"},
                                         {"additionalProperties", "object"},
                                         {"patternProperties", "object"},
                                         {"propertyNames", "object"},
                                         {"minProperties", "object"},
                                         {"maxProperties", "object"},
                                         {"items", "array"},
                                         {"prefixItems", "array"},
                                         {"minItems", "array"},
                                         {"maxItems", "array"},
                                         {"pattern", "string"},
                                         {kPatterns, "string"},
                                         {"minLength", "string"},
                                         {"maxLength", "string"},
                                         {"minimum", "number"},
                                         {"maximum", "number"},
                                         {"exclusiveMinimum", "number"},
                                         {"exclusiveMaximum", "number"},
                                         {"multipleOf", "number"}};

absl::Status At(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

// What is beside `keyword`. Definitions are found from the root.
Json Without(const Json& schema, const char* keyword) {
  Json rest = Json::object();
  for (const auto& [key, value] : schema.items()) {
    if (key != keyword && key != "$defs" && key != "definitions") {
      rest[key] = value;
    }
  }
  return rest;
}

bool SaysSomething(const Json& schema) {
  static constexpr const char* kMute[] = {
      "title", "description", "default",     "examples", "$comment", "$defs",
      "$id",   "$schema",     "definitions", "nullable", "strict"};
  for (const auto& [key, value] : schema.items()) {
    const std::string& name = key;
    if (std::none_of(std::begin(kMute), std::end(kMute),
                     [&](const char* mute) { return name == mute; })) {
      return true;
    }
  }
  return false;
}

std::string PercentDecoded(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    int value = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        absl::SimpleHexAtoi(text.substr(i + 1, 2), &value)) {
      out += static_cast<char>(value);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

absl::StatusOr<Expression> SchemaCompiler::Compile(const Json& schema,
                                                   const std::string& path) {
  root_ = &schema;
  root_path_ = path;
  rules_.clear();  // another schema has other references
  return CompilePart(schema, path);
}

absl::StatusOr<Expression> SchemaCompiler::CompilePart(
    const Json& schema, const std::string& path) {
  SY_ASSIGN_OR_RETURN(Expression value, Value(schema, path, 0));
  while (!pending_.empty()) {
    const Pending next = std::move(pending_.front());
    pending_.pop_front();
    SY_ASSIGN_OR_RETURN(grammar_->rules[next.rule],
                        Value(next.schema, next.path, 0));
  }
  return value;
}

Expression SchemaCompiler::Whitespace() {
  if (!whitespace_.has_value()) {
    whitespace_ = grammar_->AddRule();
    grammar_->rules[*whitespace_] = Choice(
        {Empty(), Literal(" "),
         Sequence({Literal("\n"),
                   Repeat(Choice({Literal(" "), Literal("\t")}), 0, 32)})});
  }
  return Rule(*whitespace_);
}

Expression SchemaCompiler::AnyValue() {
  if (!any_.has_value()) {
    any_ = grammar_->AddRule();
    array_ = grammar_->AddRule();
    const Expression ws = Whitespace();
    const Expression comma = Sequence({Literal(","), ws});
    const Expression value = Rule(*any_);
    Budget unlimited;
    absl::StatusOr<Expression> number = Numbers({}, -1, &unlimited);
    SY_CHECK(number.ok());
    const Expression text = *String(Json::object(), "");
    grammar_->rules[*any_] =
        Choice({text, *number, Literal("true"), Literal("false"),
                Literal("null"), AnyObject(), Rule(*array_)});
    grammar_->rules[*array_] =
        Sequence({Literal("["), ws,
                  Optional(Sequence(
                      {value, Repeat(Sequence({comma, value}), 0, -1), ws})),
                  Literal("]")});
  }
  return Rule(*any_);
}

Expression SchemaCompiler::AnyObject() {
  if (!object_.has_value()) {
    object_ = grammar_->AddRule();
    const Expression ws = Whitespace();
    const Expression text = *String(Json::object(), "");
    const Expression pair = Sequence({text, Literal(":"), ws, AnyValue()});
    grammar_->rules[*object_] = Sequence(
        {Literal("{"), ws,
         Optional(Sequence(
             {pair, Repeat(Sequence({Literal(","), ws, pair}), 0, -1), ws})),
         Literal("}")});
  }
  return Rule(*object_);
}

Expression SchemaCompiler::Constant(const Json& value) {
  if (value.is_string()) {
    return Sequence(
        {Literal("\""),
         Text(value.get_ref<const std::string&>(), TextForm::kJsonString),
         Literal("\"")});
  }
  if (!value.is_structured()) return Literal(DumpJson(value));
  const Expression ws = Whitespace();
  std::vector<Expression> parts = {Literal(value.is_array() ? "[" : "{")};
  if (!value.empty()) parts.push_back(ws);
  bool first = true;
  for (const auto& [key, item] : value.items()) {
    if (!first) {
      parts.push_back(Literal(","));
      parts.push_back(ws);
    }
    first = false;
    if (value.is_object()) {
      parts.push_back(Constant(key));
      parts.push_back(Literal(":"));
      parts.push_back(ws);
    }
    parts.push_back(Constant(item));
  }
  if (!value.empty()) parts.push_back(ws);
  parts.push_back(Literal(value.is_array() ? "]" : "}"));
  return Sequence(std::move(parts));
}

Expression SchemaCompiler::Later(const Json& schema, const std::string& path,
                                 const std::string& key) {
  const auto [it, is_new] = rules_.emplace(key, 0);
  if (is_new) {
    it->second = grammar_->AddRule();
    pending_.push_back({it->second, schema, path});
  }
  return Rule(it->second);
}

absl::Status SchemaCompiler::CheckKeywords(const Json& schema,
                                           const std::string& path) const {
  if (mode_ == Mode::kLenient) return absl::OkStatus();
  for (const char* keyword : kUnsupported) {
    const auto it = schema.find(keyword);
    if (it == schema.end()) continue;
    const bool says_nothing =
        absl::string_view(keyword) == "uniqueItems" && *it == false;
    if (says_nothing) continue;
    return At(absl::StrCat(path, "/", keyword),
              "this keyword is not supported by this server");
  }
  return absl::OkStatus();
}

absl::StatusOr<Expression> SchemaCompiler::Value(const Json& schema,
                                                 const std::string& path,
                                                 int depth) {
  SY_RETURN_IF_ERROR(budget_->Spend(16));
  if (depth > kMaxSchemaDepth) {
    return At(path, absl::StrCat("schemas are nested more than ",
                                 kMaxSchemaDepth, " deep"));
  }
  if (schema.is_boolean()) return schema.get<bool>() ? AnyValue() : Nothing();
  if (!schema.is_object()) return At(path, "must be an object or a boolean");
  SY_RETURN_IF_ERROR(CheckKeywords(schema, path));
  if (schema.contains("$ref")) return Reference(schema, path, depth);
  if (schema.contains("allOf")) return AllOf(schema, path, depth);
  for (const char* keyword : {"anyOf", "oneOf"}) {
    if (schema.contains(keyword)) {
      return Alternatives(schema, keyword, path, depth);
    }
  }
  if (schema.contains("enum") || schema.contains("const")) {
    return Enumeration(schema, path);
  }
  std::vector<std::string> types;
  if (const auto type = schema.find("type"); type != schema.end()) {
    const Json list = type->is_array() ? *type : Json::array({*type});
    for (const Json& name : list) {
      if (!name.is_string()) {
        return At(path + "/type", "must be a string or an array of strings");
      }
      types.push_back(name.get<std::string>());
    }
  } else {
    for (const TypeKeyword& keyword : kTypeKeywords) {
      if (schema.contains(keyword.keyword) &&
          std::find(types.begin(), types.end(), keyword.type) == types.end()) {
        types.push_back(keyword.type);
      }
    }
    if (types.empty() && schema.contains("format")) types.push_back("string");
    if (types.empty()) return AnyValue();
  }
  if (schema.value("nullable", Json(false)) == true &&
      std::find(types.begin(), types.end(), "null") == types.end()) {
    types.push_back("null");  // OpenAPI 3.0
  }
  std::vector<Expression> options;
  for (const std::string& type : types) {
    SY_ASSIGN_OR_RETURN(Expression option, OfType(type, schema, path, depth));
    options.push_back(std::move(option));
  }
  return Choice(std::move(options));
}

absl::StatusOr<Expression> SchemaCompiler::OfType(const std::string& type,
                                                  const Json& schema,
                                                  const std::string& path,
                                                  int depth) {
  if (type == "object") return Object(schema, path, depth);
  if (type == "array") return Array(schema, path, depth);
  if (type == "string") return String(schema, path);
  if (type == "integer") return Number(/*integer=*/true, schema, path);
  if (type == "number") return Number(/*integer=*/false, schema, path);
  if (type == "boolean") return Choice({Literal("true"), Literal("false")});
  if (type == "null") return Literal("null");
  return At(path + "/type", absl::StrCat("\"", type, "\" is no type of JSON"));
}

absl::StatusOr<Expression> SchemaCompiler::Alternatives(const Json& schema,
                                                        const char* keyword,
                                                        const std::string& path,
                                                        int depth) {
  const Json& list = schema[keyword];
  const std::string list_path = absl::StrCat(path, "/", keyword);
  if (!list.is_array() || list.empty()) {
    return At(list_path, "must be an array of schemas");
  }
  const Json rest = Without(schema, keyword);
  const bool alone = !SaysSomething(rest);
  std::vector<Expression> options;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string item_path = absl::StrCat(list_path, "/", i);
    Json option = list[i];
    if (!alone) {
      SY_ASSIGN_OR_RETURN(const Json resolved, Resolved(option, item_path));
      SY_ASSIGN_OR_RETURN(option, MergeSchemas(rest, resolved, item_path));
    }
    SY_ASSIGN_OR_RETURN(Expression value, Value(option, item_path, depth + 1));
    options.push_back(std::move(value));
  }
  return Choice(std::move(options));
}

absl::StatusOr<const Json*> SchemaCompiler::Target(
    const Json& reference, const std::string& path) const {
  if (!reference.is_string()) return At(path + "/$ref", "must be a string");
  const std::string& text = reference.get_ref<const std::string&>();
  if (text.empty() || text[0] != '#' || (text.size() > 1 && text[1] != '/')) {
    return At(path + "/$ref",
              absl::StrCat("\"", text,
                           "\": only references within the schema (#, #/...) "
                           "are supported"));
  }
  const Json* at = root_;
  if (text.size() == 1) return at;
  for (const absl::string_view raw :
       absl::StrSplit(absl::string_view(text).substr(2), '/')) {
    const std::string name =
        absl::StrReplaceAll(PercentDecoded(raw), {{"~1", "/"}, {"~0", "~"}});
    int64_t index = 0;
    if (at->is_object() && at->contains(name)) {
      at = &(*at)[name];
    } else if (at->is_array() && absl::SimpleAtoi(name, &index) && index >= 0 &&
               index < static_cast<int64_t>(at->size())) {
      at = &(*at)[static_cast<size_t>(index)];
    } else {
      return At(path + "/$ref",
                absl::StrCat("\"", text, "\" is not in the schema"));
    }
  }
  return at;
}

absl::StatusOr<Expression> SchemaCompiler::Reference(const Json& schema,
                                                     const std::string& path,
                                                     int depth) {
  SY_ASSIGN_OR_RETURN(const Json* const target, Target(schema["$ref"], path));
  if (!SaysSomething(Without(schema, "$ref"))) {
    const std::string& name = schema["$ref"].get_ref<const std::string&>();
    return Later(*target, absl::StrCat(root_path_, name.substr(1)),
                 absl::StrCat("ref ", name));
  }
  SY_ASSIGN_OR_RETURN(const Json merged, Resolved(schema, path));
  return Later(merged, path, absl::StrCat("schema ", DumpJson(merged)));
}

absl::StatusOr<Json> SchemaCompiler::Resolved(const Json& schema,
                                              const std::string& path) {
  const int level = resolving_;
  const auto restore = absl::MakeCleanup([&] { resolving_ = level; });
  Json at = schema;
  while (at.is_object()) {
    SY_RETURN_IF_ERROR(CheckKeywords(at, path));
    // Copies and joins of large schemas cost in proportion.
    SY_RETURN_IF_ERROR(
        budget_->Spend(static_cast<int64_t>(DumpJson(at).size())));
    if (++resolving_ > kMaxReferences) {
      return At(path, "references lead nowhere but to one another");
    }
    if (at.contains("$ref")) {
      SY_ASSIGN_OR_RETURN(const Json* const target, Target(at["$ref"], path));
      // The target's own references stay where they are found next.
      const Json rest = Without(at, "$ref");
      if (!SaysSomething(rest)) {
        at = *target;
        continue;
      }
      SY_ASSIGN_OR_RETURN(const Json base, Resolved(*target, path));
      SY_ASSIGN_OR_RETURN(at, MergeSchemas(base, rest, path));
    } else if (at.contains("allOf")) {
      const Json list = at["allOf"];
      if (!list.is_array()) {
        return At(path + "/allOf", "must be an array of schemas");
      }
      Json merged = Without(at, "allOf");
      for (size_t part = 0; part < list.size(); ++part) {
        const std::string part_path = absl::StrCat(path, "/allOf/", part);
        SY_ASSIGN_OR_RETURN(const Json resolved,
                            Resolved(list[part], part_path));
        SY_ASSIGN_OR_RETURN(merged, MergeSchemas(merged, resolved, part_path));
      }
      at = merged;
    } else {
      break;
    }
  }
  return at;
}

absl::StatusOr<Expression> SchemaCompiler::AllOf(const Json& schema,
                                                 const std::string& path,
                                                 int /*depth*/) {
  SY_ASSIGN_OR_RETURN(const Json merged, Resolved(schema, path));
  return Later(merged, path, absl::StrCat("schema ", DumpJson(merged)));
}

}  // namespace switchyard::grammar
