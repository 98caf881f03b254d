// SchemaCompiler: strings, numbers, and lists of values.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "grammar/code_points.h"
#include "grammar/formats.h"
#include "grammar/json_schema.h"
#include "grammar/numbers.h"
#include "grammar/regex.h"
#include "grammar/schema_merge.h"

namespace switchyard::grammar {
namespace {

// Where maxLength allows more, so many are enough: an automaton has states for
// each.
constexpr int kMaxStringLength = 4096;
constexpr int kMaxMultiple = 1000;

absl::Status At(const std::string& path, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

std::string Content(const std::string& text) {
  const std::string quoted = DumpJson(text);
  return quoted.substr(1, quoted.size() - 2);
}

bool IsIntegral(const Json& value) {
  if (value.is_number_integer() || value.is_binary()) return true;
  if (!value.is_number_float()) return false;
  const absl::StatusOr<Decimal> decimal = Decimal::FromJson(value);
  return decimal.ok() && decimal->fraction.empty();
}

bool HasType(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "integer") return IsIntegral(value);
  return type == "number" && (value.is_number() || value.is_binary());
}

absl::StatusOr<NumberBounds> ReadBounds(const Json& schema,
                                        const std::string& path) {
  NumberBounds bounds;
  const auto read = [&](const char* plain, const char* exclusive, bool least,
                        absl::optional<Decimal>* bound,
                        bool* is_exclusive) -> absl::Status {
    for (const char* keyword : {plain, exclusive}) {
      const auto it = schema.find(keyword);
      if (it == schema.end()) continue;
      if (keyword == exclusive && it->is_boolean()) {  // draft 4
        *is_exclusive = it->get<bool>() && bound->has_value();
        continue;
      }
      absl::StatusOr<Decimal> value = Decimal::FromJson(*it);
      if (!value.ok()) {
        return At(absl::StrCat(path, "/", keyword), value.status().message());
      }
      const int order =
          bound->has_value() ? Decimal::Compare(*value, **bound) : 0;
      const bool tighter =
          !bound->has_value() || (least ? order >= 0 : order <= 0);
      if (!tighter) continue;
      *bound = *std::move(value);
      *is_exclusive = keyword == exclusive;
    }
    return absl::OkStatus();
  };
  SY_RETURN_IF_ERROR(read("minimum", "exclusiveMinimum", true, &bounds.min,
                          &bounds.exclusive_min));
  SY_RETURN_IF_ERROR(read("maximum", "exclusiveMaximum", false, &bounds.max,
                          &bounds.exclusive_max));
  return bounds;
}

bool Within(const NumberBounds& bounds, const Decimal& value) {
  if (bounds.min.has_value()) {
    const int order = Decimal::Compare(value, *bounds.min);
    if (order < 0 || (order == 0 && bounds.exclusive_min)) return false;
  }
  if (bounds.max.has_value()) {
    const int order = Decimal::Compare(value, *bounds.max);
    if (order > 0 || (order == 0 && bounds.exclusive_max)) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<absl::optional<int>> SchemaCompiler::Count(
    const Json& schema, const char* keyword, const std::string& path) const {
  const auto it = schema.find(keyword);
  if (it == schema.end()) return absl::optional<int>();
  constexpr double kMany = 1'000'000'000;
  if (!IsIntegral(*it) || it->is_binary() || it->get<double>() < 0) {
    return At(absl::StrCat(path, "/", keyword),
              "must be a whole number, 0 or more");
  }
  return absl::optional<int>(
      static_cast<int>(std::min(it->get<double>(), kMany)));
}

absl::StatusOr<Expression> SchemaCompiler::Enumeration(
    const Json& schema, const std::string& path) {
  Json values = Json::array();
  if (const auto it = schema.find("enum"); it != schema.end()) {
    if (!it->is_array()) return At(path + "/enum", "must be an array");
    values = *it;
  }
  if (const auto it = schema.find("const"); it != schema.end()) {
    const bool listed =
        !schema.contains("enum") ||
        std::find(values.begin(), values.end(), *it) != values.end();
    values = listed ? Json::array({*it}) : Json::array();
  }
  std::vector<Expression> options;
  for (const Json& value : values) {
    SY_RETURN_IF_ERROR(budget_->Spend(16));
    SY_ASSIGN_OR_RETURN(const bool allowed, Allows(schema, value, path));
    if (allowed) options.push_back(Constant(value));
  }
  return Choice(std::move(options));
}

// Whether the keywords beside enum and const allow one of their values.
absl::StatusOr<bool> SchemaCompiler::Allows(const Json& schema,
                                            const Json& value,
                                            const std::string& path) {
  if (const auto type = schema.find("type"); type != schema.end()) {
    const Json list = type->is_array() ? *type : Json::array({*type});
    const bool fits =
        std::any_of(list.begin(), list.end(), [&](const Json& name) {
          return name.is_string() && HasType(value, name.get<std::string>());
        });
    if (!fits &&
        !(value.is_null() && schema.value("nullable", Json(false)) == true)) {
      return false;
    }
  }
  if (value.is_string()) {
    SY_ASSIGN_OR_RETURN(const std::shared_ptr<const Dfa> content,
                        StringContent(schema, path, TextForm::kJsonString));
    return content == nullptr ||
           content->Matches(Content(value.get<std::string>()));
  }
  if (value.is_number()) {
    SY_ASSIGN_OR_RETURN(const NumberBounds bounds, ReadBounds(schema, path));
    if (schema.contains("multipleOf")) {
      return At(path + "/multipleOf", "is not supported beside enum or const");
    }
    if (!bounds.min.has_value() && !bounds.max.has_value()) return true;
    SY_ASSIGN_OR_RETURN(const Decimal decimal, Decimal::FromJson(value));
    return Within(bounds, decimal);
  }
  if (!value.is_structured()) return true;
  for (const char* keyword :
       {"properties", "required", "additionalProperties", "patternProperties",
        "propertyNames", "minProperties", "maxProperties", "items",
        "prefixItems", "minItems", "maxItems"}) {
    if (schema.contains(keyword)) {
      return At(absl::StrCat(path, "/", keyword),
                "is not supported beside enum or const");
    }
  }
  return true;
}

absl::StatusOr<Dfa> SchemaCompiler::PatternDfa(const std::string& pattern,
                                               RegexMatch match,
                                               TextForm form) {
  SY_ASSIGN_OR_RETURN(const Expression expression,
                      ParseRegex(pattern, form, match, budget_));
  return BuildDfa(expression, budget_);
}

absl::StatusOr<std::shared_ptr<const Dfa>> SchemaCompiler::StringContent(
    const Json& schema, const std::string& path, TextForm form) {
  absl::optional<Dfa> all;
  const auto add = [&](Dfa dfa) -> absl::Status {
    if (all.has_value()) {
      SY_ASSIGN_OR_RETURN(all, Combine(*all, dfa, Combination::kBoth, budget_));
    } else {
      all = std::move(dfa);
    }
    return absl::OkStatus();
  };
  Json patterns =
      schema.contains(kPatterns) ? schema[kPatterns] : Json::array();
  if (schema.contains("pattern")) patterns.push_back(schema["pattern"]);
  for (const Json& pattern : patterns) {
    if (!pattern.is_string()) return At(path + "/pattern", "must be a string");
    absl::StatusOr<Dfa> dfa =
        PatternDfa(pattern.get<std::string>(), RegexMatch::kSearch, form);
    if (!dfa.ok()) {
      if (mode_ == Mode::kLenient) continue;
      return At(path + "/pattern", dfa.status().message());
    }
    SY_RETURN_IF_ERROR(add(*std::move(dfa)));
  }
  if (const auto format = schema.find("format");
      format != schema.end() && format->is_string()) {
    const std::string expression(
        FormatExpression(format->get_ref<const std::string&>()));
    if (!expression.empty()) {
      SY_ASSIGN_OR_RETURN(Dfa dfa,
                          PatternDfa(expression, RegexMatch::kWhole, form));
      SY_RETURN_IF_ERROR(add(std::move(dfa)));
    }
  }
  SY_ASSIGN_OR_RETURN(const absl::optional<int> least,
                      Count(schema, "minLength", path));
  SY_ASSIGN_OR_RETURN(absl::optional<int> most,
                      Count(schema, "maxLength", path));
  const int min = least.value_or(0);
  if (most.has_value() && *most < min) {
    return At(path + "/maxLength", "is less than minLength");
  }
  if (min > kMaxStringLength) {
    return At(path + "/minLength",
              absl::StrCat("is ", min, "; at most ", kMaxStringLength,
                           " is supported"));
  }
  if (most.has_value()) *most = std::min(*most, kMaxStringLength);
  if (min > 0 || most.has_value()) {
    SY_ASSIGN_OR_RETURN(Dfa dfa,
                        BuildDfa(Repeat(OneOf(CodePointSet::All(), form), min,
                                        most.value_or(-1)),
                                 budget_));
    SY_RETURN_IF_ERROR(add(std::move(dfa)));
  }
  if (!all.has_value()) return nullptr;
  return std::make_shared<const Dfa>(*std::move(all));
}

absl::StatusOr<Expression> SchemaCompiler::String(const Json& schema,
                                                  const std::string& path) {
  SY_ASSIGN_OR_RETURN(std::shared_ptr<const Dfa> content,
                      StringContent(schema, path, TextForm::kJsonString));
  if (content != nullptr) {
    return Sequence(
        {Literal("\""), Automaton(std::move(content)), Literal("\"")});
  }
  if (!string_.has_value()) {
    string_ = grammar_->AddRule();
    grammar_->rules[*string_] = Sequence(
        {Literal("\""), Repeat(AnyJsonCharacter(), 0, -1), Literal("\"")});
  }
  return Rule(*string_);
}

absl::StatusOr<Expression> SchemaCompiler::Number(bool integer,
                                                  const Json& schema,
                                                  const std::string& path) {
  SY_ASSIGN_OR_RETURN(const NumberBounds bounds, ReadBounds(schema, path));
  int multiple = 1, fraction_digits = -1;
  if (const auto it = schema.find("multipleOf"); it != schema.end()) {
    const std::string at = path + "/multipleOf";
    SY_ASSIGN_OR_RETURN(const Decimal step, Decimal::FromJson(*it));
    const bool tenths =
        step.integer == "0" && !step.fraction.empty() &&
        step.fraction.find_first_not_of('0') == step.fraction.size() - 1 &&
        step.fraction.back() == '1';
    if (tenths) {
      // 0.01: no more than two digits behind the point.
      fraction_digits = static_cast<int>(step.fraction.size());
    } else if (step.fraction.empty() && !step.negative &&
               step.integer.size() <= 4 && std::stoi(step.integer) >= 1 &&
               std::stoi(step.integer) <= kMaxMultiple) {
      multiple = std::stoi(step.integer);
      integer = true;
    } else if (mode_ == Mode::kStrict) {
      return At(at, absl::StrCat("must be 1 to ", kMaxMultiple,
                                 ", or 0.1, 0.01, ..."));
    }
  }
  return integer ? Integers(bounds, multiple, budget_)
                 : Numbers(bounds, fraction_digits, budget_);
}

}  // namespace switchyard::grammar
