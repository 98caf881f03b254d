#include "router/text/xml_value.h"

#include <cmath>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "router/text/json_scanner.h"

namespace switchyard::router {
namespace {

// Of nested anyOf and oneOf.
constexpr int kMaxSchemaDepth = 8;

bool IsValidJson(absl::string_view text) {
  JsonScanner scanner(JsonScanner::Mode::kStrict);
  for (size_t i = 0; i < text.size(); ++i) {
    switch (scanner.Push(text[i], nullptr)) {
      case JsonScanner::Result::kMore:
        break;
      case JsonScanner::Result::kDone:
        return absl::StripAsciiWhitespace(text.substr(i + 1)).empty();
      case JsonScanner::Result::kDoneBefore:
        return absl::StripAsciiWhitespace(text.substr(i)).empty();
      case JsonScanner::Result::kError:
        return false;
    }
  }
  // Only a number may lack an end.
  return scanner.Push(' ', nullptr) == JsonScanner::Result::kDoneBefore;
}

// An integer of any size, without the plus sign and the leading zeros that JSON
// doesn't have; "" if it is none.
std::string IntegerText(absl::string_view text) {
  const bool negative = absl::ConsumePrefix(&text, "-");
  if (!negative) absl::ConsumePrefix(&text, "+");
  if (text.empty() || !absl::c_all_of(text, [](unsigned char c) {
        return absl::ascii_isdigit(c);
      })) {
    return "";
  }
  while (text.size() > 1 && text[0] == '0') text.remove_prefix(1);
  return absl::StrCat(negative ? "-" : "", text);
}

std::string NumberText(absl::string_view text) {
  if (!text.empty() && (text[0] == '-' || absl::ascii_isdigit(text[0])) &&
      IsValidJson(text)) {
    return std::string(text);
  }
  std::string integer = IntegerText(text);
  if (!integer.empty()) return integer;
  // ".5" and "5." are numbers too; "inf" and "0x10" are not.
  const bool decimal =
      !text.empty() && absl::c_all_of(text, [](unsigned char c) {
        return absl::ascii_isdigit(c) || c == '+' || c == '-' || c == '.' ||
               c == 'e' || c == 'E';
      });
  double value = 0;
  if (decimal && absl::SimpleAtod(text, &value) && std::isfinite(value)) {
    return DumpJsonLikePython(Json(value));
  }
  return "";
}

}  // namespace

XmlValueType XmlValueType::FromSchema(const Json& schema) {
  XmlValueType type;
  type.AddTypes(schema, 0);
  return type;
}

void XmlValueType::AddTypes(const Json& schema, int depth) {
  if (!schema.is_object() || depth > kMaxSchemaDepth) return;
  const auto type = schema.find("type");
  if (type != schema.end()) {
    if (type->is_string()) AddType(type->get_ref<const std::string&>());
    if (type->is_array()) {
      for (const Json& name : *type) {
        if (name.is_string()) AddType(name.get_ref<const std::string&>());
      }
    }
    return;
  }
  for (const char* key : {"anyOf", "oneOf"}) {
    const auto options = schema.find(key);
    if (options == schema.end() || !options->is_array()) continue;
    for (const Json& option : *options) {
      const size_t before = kinds_.size();
      AddTypes(option, depth + 1);
      // One option of unknown type ($ref, enum): the value may be anything.
      if (kinds_.size() == before) {
        kinds_.clear();
        return;
      }
    }
  }
}

void XmlValueType::AddType(absl::string_view name) {
  const std::string lower = absl::AsciiStrToLower(name);
  const auto is = [&lower](absl::string_view prefix) {
    return absl::StartsWith(lower, prefix);
  };
  Kind kind = Kind::kString;  // also what JSON Schema doesn't know
  if (is("null") || is("none")) {
    kind = Kind::kNull;
  } else if (is("int")) {
    kind = Kind::kInteger;
  } else if (is("num") || is("float") || is("double")) {
    kind = Kind::kNumber;
  } else if (is("bool")) {
    kind = Kind::kBoolean;
  } else if (is("object") || is("dict")) {
    kind = Kind::kObject;
  } else if (is("array") || is("list")) {
    kind = Kind::kArray;
  }
  if (!Allows(kind)) kinds_.push_back(kind);
}

bool XmlValueType::Allows(Kind kind) const {
  return absl::c_linear_search(kinds_, kind);
}

std::string XmlValueType::ToJson(absl::string_view value) const {
  const absl::string_view text = absl::StripAsciiWhitespace(value);
  if (absl::EqualsIgnoreCase(value, "null") &&
      (!Allows(Kind::kString) || Allows(Kind::kNull))) {
    return "null";
  }
  for (const Kind kind : kinds_) {
    std::string json;
    if (kind == Kind::kInteger) {
      json = IntegerText(text);
    } else if (kind == Kind::kNumber) {
      json = NumberText(text);
    } else if (kind == Kind::kBoolean &&
               (absl::EqualsIgnoreCase(text, "true") ||
                absl::EqualsIgnoreCase(text, "false"))) {
      json = absl::AsciiStrToLower(text);
    } else if ((kind == Kind::kObject && absl::StartsWith(text, "{")) ||
               (kind == Kind::kArray && absl::StartsWith(text, "["))) {
      if (IsValidJson(text)) json = std::string(text);
    }
    if (!json.empty()) return json;
  }
  if (kinds_.empty() && !text.empty() && text[0] != '"' && IsValidJson(text)) {
    return std::string(text);
  }
  return DumpJson(Json(std::string(value)));
}

bool XmlValueType::IsText(absl::string_view beginning) const {
  if (!Allows(Kind::kString)) return false;
  if (kinds_.size() == 1) return true;
  // Of "string or null", only "null" is not a string.
  return kinds_.size() == 2 && Allows(Kind::kNull) &&
         !absl::StartsWithIgnoreCase("null", beginning);
}

}  // namespace switchyard::router
