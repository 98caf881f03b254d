#include "grammar/schema_merge.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "grammar/numbers.h"

namespace switchyard::grammar {
namespace {

Json AsList(const Json& value) {
  return value.is_array() ? value : Json::array({value});
}

Json BothOf(const Json& a, const Json& b) {
  if (a == b) return a;
  return Json{{"allOf", Json::array({a, b})}};
}

Json CommonTypes(const Json& a, const Json& b) {
  Json out = Json::array();
  for (const Json& x : AsList(a)) {
    for (const Json& y : AsList(b)) {
      if (x == y) out.push_back(x);
      if ((x == "integer" && y == "number") ||
          (x == "number" && y == "integer")) {
        out.push_back("integer");
      }
    }
  }
  return out;
}

Json CommonValues(const Json& a, const Json& b) {
  Json out = Json::array();
  for (const Json& value : a) {
    if (std::find(b.begin(), b.end(), value) != b.end()) out.push_back(value);
  }
  return out;
}

absl::StatusOr<Json> Extreme(const Json& a, const Json& b, bool greater) {
  SY_ASSIGN_OR_RETURN(const Decimal x, Decimal::FromJson(a));
  SY_ASSIGN_OR_RETURN(const Decimal y, Decimal::FromJson(b));
  return (Decimal::Compare(x, y) > 0) == greater ? a : b;
}

bool IsClosed(const Json& schema) {
  return schema.contains("additionalProperties");
}

// A property that `other` does not name falls under its additionalProperties.
void MergeProperties(const Json& a, const Json& b, Json* out) {
  const Json none = Json::object();
  const Json& in_a = a.contains("properties") ? a["properties"] : none;
  const Json& in_b = b.contains("properties") ? b["properties"] : none;
  if (!in_a.is_object() || !in_b.is_object()) return;
  Json merged = Json::object();
  for (const auto& [name, schema] : in_a.items()) {
    if (in_b.contains(name)) {
      merged[name] = BothOf(schema, in_b[name]);
    } else {
      merged[name] =
          IsClosed(b) ? BothOf(schema, b["additionalProperties"]) : schema;
    }
  }
  for (const auto& [name, schema] : in_b.items()) {
    if (in_a.contains(name)) continue;
    merged[name] =
        IsClosed(a) ? BothOf(schema, a["additionalProperties"]) : schema;
  }
  if (!merged.empty()) (*out)["properties"] = std::move(merged);
}

// The schema of the i-th item; true if nothing is said.
Json ItemAt(const Json& schema, size_t i) {
  const auto prefix = schema.find("prefixItems");
  if (prefix != schema.end() && prefix->is_array() && i < prefix->size()) {
    return (*prefix)[i];
  }
  return schema.contains("items") ? schema["items"] : Json(true);
}

// Items behind one's own prefix fall under one's items.
void MergeItems(const Json& a, const Json& b, Json* out) {
  size_t fixed = 0;
  for (const Json* schema : {&a, &b}) {
    const auto prefix = schema->find("prefixItems");
    if (prefix != schema->end() && prefix->is_array()) {
      fixed = std::max(fixed, prefix->size());
    }
  }
  Json prefix = Json::array();
  for (size_t i = 0; i < fixed; ++i) {
    prefix.push_back(BothOf(ItemAt(a, i), ItemAt(b, i)));
  }
  if (fixed > 0) (*out)["prefixItems"] = std::move(prefix);
  if (a.contains("items") || b.contains("items")) {
    (*out)["items"] = BothOf(ItemAt(a, fixed), ItemAt(b, fixed));
  }
}

// Tuples as they were written before draft 2020-12.
Json WithPrefixItems(Json schema) {
  const auto items = schema.find("items");
  if (items == schema.end() || !items->is_array()) return schema;
  schema["prefixItems"] = Json(*items);
  schema.erase("items");
  if (schema.contains("additionalItems")) {
    schema["items"] = Json(schema["additionalItems"]);
  }
  return schema;
}

bool IsMergedApart(const std::string& key) {
  return key == "properties" || key == "prefixItems" || key == "items";
}

absl::StatusOr<Json> MergeKeyword(const std::string& key, const Json& a,
                                  const Json& b, const std::string& path) {
  if (a == b) return a;
  if (key == "type") return CommonTypes(a, b);
  if (key == "enum" && a.is_array() && b.is_array()) return CommonValues(a, b);
  if (key == "required" && a.is_array() && b.is_array()) {
    Json out = a;
    for (const Json& name : b) {
      if (std::find(a.begin(), a.end(), name) == a.end()) out.push_back(name);
    }
    return out;
  }
  if (key == kPatterns) {
    Json out = a;
    for (const Json& pattern : b) out.push_back(pattern);
    return out;
  }
  if (key == "additionalProperties" || key == "propertyNames") {
    return BothOf(a, b);
  }
  if (key == "patternProperties" && a.is_object() && b.is_object()) {
    Json out = a;
    for (const auto& [pattern, schema] : b.items()) {
      out[pattern] =
          out.contains(pattern) ? BothOf(out[pattern], schema) : schema;
    }
    return out;
  }
  static const auto* const kLeast = new absl::flat_hash_set<std::string>{
      "minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"};
  static const auto* const kMost = new absl::flat_hash_set<std::string>{
      "maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"};
  if (kLeast->contains(key)) return Extreme(a, b, true);
  if (kMost->contains(key)) return Extreme(a, b, false);
  return absl::InvalidArgumentError(
      absl::StrCat(path, "/", key,
                   ": cannot be joined with another of the same name (allOf, "
                   "or a keyword beside $ref); write it once"));
}

// Of one pattern or several: the form that can be joined.
Json WithPatternList(Json schema) {
  const auto it = schema.find("pattern");
  if (it == schema.end()) return schema;
  Json list = schema.contains(kPatterns) ? schema[kPatterns] : Json::array();
  list.push_back(*it);
  schema.erase("pattern");
  schema[kPatterns] = std::move(list);
  return schema;
}

Json WithEnum(Json schema) {
  const auto it = schema.find("const");
  if (it == schema.end() || schema.contains("enum")) return schema;
  const Json value = *it;
  schema.erase("const");
  schema["enum"] = Json::array({value});
  return schema;
}

bool IsAnnotation(const std::string& key) {
  return key == "title" || key == "description" || key == "default" ||
         key == "examples" || key == "$comment" || key == "$defs" ||
         key == "definitions" || key == "$id" || key == "$schema";
}

}  // namespace

absl::StatusOr<Json> MergeSchemas(const Json& first, const Json& second,
                                  const std::string& path) {
  if (first.is_boolean()) return first.get<bool>() ? second : first;
  if (second.is_boolean()) return second.get<bool>() ? first : second;
  if (!first.is_object() || !second.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": must be an object or a boolean"));
  }
  const Json a = WithPrefixItems(WithEnum(WithPatternList(first)));
  const Json b = WithPrefixItems(WithEnum(WithPatternList(second)));
  Json out = Json::object();
  for (const auto& [key, value] : a.items()) {
    if (!IsMergedApart(key)) out[key] = value;
  }
  for (const auto& [key, value] : b.items()) {
    if (IsMergedApart(key)) continue;
    if (!out.contains(key)) {
      out[key] = value;
    } else if (IsAnnotation(key)) {
      continue;
    } else if (key == "anyOf" && !out.contains("oneOf") &&
               !b.contains("oneOf") && out[key] != value) {
      out["oneOf"] = value;  // read alike
    } else if (key == "oneOf" && !out.contains("anyOf") &&
               !b.contains("anyOf") && out[key] != value) {
      out["anyOf"] = value;
    } else {
      SY_ASSIGN_OR_RETURN(out[key], MergeKeyword(key, out[key], value, path));
    }
  }
  MergeProperties(a, b, &out);
  MergeItems(a, b, &out);
  return out;
}

}  // namespace switchyard::grammar
