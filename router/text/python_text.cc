#include "router/text/python_text.h"

#include <utf8proc.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "text/utf8.h"

namespace switchyard::router {
namespace {

// str.isspace() of one character.
bool IsPythonSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 ||
         c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// str.isprintable() of one character.
bool IsPythonPrintable(char32_t c) {
  if (c == ' ') return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

void AppendRepr(absl::string_view text, std::string* out) {
  const char quote =
      absl::StrContains(text, "'") && !absl::StrContains(text, "\"") ? '"'
                                                                     : '\'';
  out->push_back(quote);
  while (!text.empty()) {
    const text::Utf8Character character = text::DecodeUtf8(text);
    const char32_t c = character.code_point;
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      absl::StrAppend(out, "\\", text.substr(0, 1));
    } else if (c == '\n') {
      absl::StrAppend(out, "\\n");
    } else if (c == '\r') {
      absl::StrAppend(out, "\\r");
    } else if (c == '\t') {
      absl::StrAppend(out, "\\t");
    } else if (IsPythonPrintable(c)) {
      text::AppendUtf8(c, out);
    } else if (c < 0x100) {
      absl::StrAppendFormat(out, "\\x%02x", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      absl::StrAppendFormat(out, "\\u%04x", static_cast<uint32_t>(c));
    } else {
      absl::StrAppendFormat(out, "\\U%08x", static_cast<uint32_t>(c));
    }
    text.remove_prefix(character.length);
  }
  out->push_back(quote);
}

// Nesting is bounded by ParseJson's limit.
void AppendPython(const Json& value, bool repr, std::string* out) {
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    if (repr) {
      AppendRepr(text, out);
    } else {
      out->append(text);
    }
  } else if (value.is_null()) {
    out->append("None");
  } else if (value.is_boolean()) {
    out->append(value.get<bool>() ? "True" : "False");
  } else if (value.is_array()) {
    absl::string_view separator = "[";
    for (const Json& item : value) {
      absl::StrAppend(out, separator);
      AppendPython(item, /*repr=*/true, out);
      separator = ", ";
    }
    out->append(value.empty() ? "[]" : "]");
  } else if (value.is_object()) {
    absl::string_view separator = "{";
    for (const auto& [key, item] : value.items()) {
      absl::StrAppend(out, separator);
      AppendRepr(key, out);
      absl::StrAppend(out, ": ");
      AppendPython(item, /*repr=*/true, out);
      separator = ", ";
    }
    out->append(value.empty() ? "{}" : "}");
  } else {
    out->append(DumpJsonLikePython(value));  // numbers print alike
  }
}

// The offset of the last character of `text` (not empty, valid UTF-8).
size_t LastCharacter(absl::string_view text) {
  size_t i = text.size() - 1;
  while (i > 0 && (static_cast<uint8_t>(text[i]) & 0xC0) == 0x80) --i;
  return i;
}

}  // namespace

std::string PythonStr(const Json& value) {
  std::string out;
  AppendPython(value, /*repr=*/false, &out);
  return out;
}

bool PythonTruth(const Json& value) {
  if (value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  if (value.is_binary()) return true;  // an integer beyond 64 bits
  return !value.empty();
}

absl::string_view PythonRightStrip(absl::string_view text) {
  while (!text.empty()) {
    const size_t last = LastCharacter(text);
    if (!IsPythonSpace(text::DecodeUtf8(text.substr(last)).code_point)) break;
    text = text.substr(0, last);
  }
  return text;
}

absl::string_view PythonStrip(absl::string_view text) {
  while (!text.empty()) {
    const text::Utf8Character character = text::DecodeUtf8(text);
    if (!IsPythonSpace(character.code_point)) break;
    text.remove_prefix(character.length);
  }
  return PythonRightStrip(text);
}

absl::string_view StripLeadingNewlines(absl::string_view text) {
  while (absl::ConsumePrefix(&text, "\n")) {
  }
  return text;
}

absl::string_view StripTrailingNewlines(absl::string_view text) {
  while (absl::ConsumeSuffix(&text, "\n")) {
  }
  return text;
}

absl::string_view StripNewlines(absl::string_view text) {
  return StripTrailingNewlines(StripLeadingNewlines(text));
}

}  // namespace switchyard::router
