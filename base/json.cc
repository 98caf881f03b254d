#include "base/json.h"

#include <charconv>
#include <cmath>
#include <cstdlib>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"

namespace switchyard {
namespace {

// ---------------------------------------------------------------- parsing

// Objects with more keys than this find repeated ones by hash.
constexpr size_t kLinearSearchKeys = 16;

// A container that is still open. Members are collected here and moved into a
// Json of their number at its end: nlohmann's ordered map looks for each new
// key among all others, and copies its values when it grows.
struct Container {
  explicit Container(bool object) : is_object(object) {}
  Container(Container&&) = default;  // never copied: it may be large

  // Makes `name` the key of the next value; a repeated key gets its first
  // place.
  void SetKey(std::string name) {
    constexpr size_t kNone = static_cast<size_t>(-1);
    place = kNone;
    if (members.size() <= kLinearSearchKeys) {
      for (size_t i = 0; i < members.size() && place == kNone; ++i) {
        if (members[i].first == name) place = i;
      }
    } else {
      for (size_t i = places.size(); i < members.size(); ++i) {
        places.emplace(members[i].first, i);
      }
      const auto found = places.find(name);
      if (found != places.end()) place = found->second;
    }
    if (place == kNone) {
      place = members.size();
      members.emplace_back(std::move(name), Json());
    }
  }

  void Add(Json value) {
    if (is_object) {
      members[place].second = std::move(value);
    } else {
      items.push_back(std::move(value));
    }
  }

  Json Finish() {
    if (!is_object) return Json(std::move(items));
    Json::object_t object;
    object.reserve(members.size());
    for (auto& [key, value] : members) {
      object.emplace_back(std::move(key), std::move(value));
    }
    return Json(std::move(object));
  }

  bool is_object;
  Json::array_t items;
  std::vector<std::pair<std::string, Json>> members;
  size_t place = 0;  // in `members`, of the value to come
  // Of the first places.size() members, for large objects.
  absl::flat_hash_map<std::string, size_t> places;
};

// Receives nlohmann's events and builds the value. Its own stack bounds depth.
class Builder final : public nlohmann::json_sax<Json> {
 public:
  explicit Builder(int max_depth) : max_depth_(max_depth) {}

  bool null() override { return Add(nullptr); }
  bool boolean(bool value) override { return Add(value); }
  bool number_integer(number_integer_t value) override { return Add(value); }
  bool number_unsigned(number_unsigned_t value) override { return Add(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    // An integer that didn't fit comes here too, rounded; its text didn't.
    if (text.find_first_not_of("-0123456789") == std::string::npos) {
      return Add(Json::binary({text.begin(), text.end()}));
    }
    return Add(value);
  }
  bool string(string_t& value) override { return Add(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // not in JSON text
  bool start_object(size_t) override { return Open(true); }
  bool start_array(size_t) override { return Open(false); }
  bool key(string_t& name) override {
    open_.back().SetKey(std::move(name));
    return true;
  }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool parse_error(size_t position, const string_t& /*last_token*/,
                   const nlohmann::detail::exception& error) override {
    // `position` counts what was read, the byte at fault included.
    error_ = absl::StrCat("at byte ", position > 0 ? position - 1 : 0, ": ",
                          Shorten(error.what()));
    return false;
  }

  bool too_deep() const { return too_deep_; }
  const std::string& error() const { return error_; }
  Json TakeResult() { return std::move(result_); }

 private:
  // nlohmann's text without its "[json.exception...] parse error at ...:", cut,
  // and in ASCII: it cites the input.
  static std::string Shorten(absl::string_view what) {
    constexpr size_t kMaxBytes = 160;
    const size_t bracket = what.find("] ");
    if (bracket != absl::string_view::npos) what.remove_prefix(bracket + 2);
    if (absl::StartsWith(what, "parse error")) {
      const size_t colon = what.find(": ");
      if (colon != absl::string_view::npos) what.remove_prefix(colon + 2);
    }
    std::string text(what.substr(0, kMaxBytes));
    if (what.size() > kMaxBytes) text += "...";
    for (char& c : text) {
      if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
    }
    return text;
  }

  bool Open(bool object) {
    if (open_.size() >= static_cast<size_t>(max_depth_)) {
      too_deep_ = true;
      return false;
    }
    open_.emplace_back(object);
    return true;
  }

  bool Close() {
    Json value = open_.back().Finish();
    open_.pop_back();
    return Add(std::move(value));
  }

  bool Add(Json value) {
    if (open_.empty()) {
      result_ = std::move(value);
    } else {
      open_.back().Add(std::move(value));
    }
    return true;
  }

  const int max_depth_;
  std::vector<Container> open_;
  Json result_;
  bool too_deep_ = false;
  std::string error_;
};

// The offset of the bracket that goes deeper than `max_depth`. The text up to
// there has been parsed, so it is well-formed.
size_t OffsetOfDepth(absl::string_view text, int max_depth) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      if (++depth > max_depth) return i;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return text.size();
}

// ---------------------------------------------------------------- printing

// The bytes of the UTF-8 character at the start of `text`, or 0 when it isn't
// one (overlong forms, surrogates and what lies beyond U+10FFFF are none).
size_t Utf8Length(absl::string_view text) {
  const auto byte = [&](size_t i) -> unsigned {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0;
  };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return text.empty() ? 0 : 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (!continues(1) || !continues(2)) return 0;
    if (first == 0xE0 && byte(1) < 0xA0) return 0;   // overlong
    if (first == 0xED && byte(1) >= 0xA0) return 0;  // surrogate
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (first == 0xF0 && byte(1) < 0x90) return 0;   // overlong
    if (first == 0xF4 && byte(1) >= 0x90) return 0;  // beyond U+10FFFF
    return 4;
  }
  return 0;
}

struct Style {
  absl::string_view comma;
  absl::string_view colon;
  bool nan_as_null;  // else NaN and Infinity, as Python
};

class Writer {
 public:
  explicit Writer(const Style& style) : style_(style) {}

  void Write(const Json& value) {
    switch (value.type()) {
      case Json::value_t::null:
      case Json::value_t::discarded:
        out_ += "null";
        break;
      case Json::value_t::boolean:
        out_ += value.get<bool>() ? "true" : "false";
        break;
      case Json::value_t::number_integer:
        absl::StrAppend(&out_, value.get<int64_t>());
        break;
      case Json::value_t::number_unsigned:
        absl::StrAppend(&out_, value.get<uint64_t>());
        break;
      case Json::value_t::number_float:
        WriteFloat(value.get<double>());
        break;
      case Json::value_t::string:
        WriteString(value.get_ref<const std::string&>());
        break;
      case Json::value_t::binary: {
        const auto& digits = value.get_binary();
        out_.append(digits.begin(), digits.end());
        break;
      }
      case Json::value_t::array:
        WriteArray(value);
        break;
      case Json::value_t::object:
        WriteObject(value);
        break;
    }
  }

  std::string Take() { return std::move(out_); }

 private:
  void WriteArray(const Json& value) {
    out_ += '[';
    bool first = true;
    for (const Json& item : value) {
      if (!first) absl::StrAppend(&out_, style_.comma);
      first = false;
      Write(item);
    }
    out_ += ']';
  }

  void WriteObject(const Json& value) {
    out_ += '{';
    bool first = true;
    for (const auto& [key, member] : value.get_ref<const Json::object_t&>()) {
      if (!first) absl::StrAppend(&out_, style_.comma);
      first = false;
      WriteString(key);
      absl::StrAppend(&out_, style_.colon);
      Write(member);
    }
    out_ += '}';
  }

  void WriteString(absl::string_view text) {
    out_ += '"';
    for (size_t i = 0; i < text.size();) {
      const size_t length = Utf8Length(text.substr(i));
      if (length == 0) {
        out_ += "\xEF\xBF\xBD";  // U+FFFD, the replacement character
        ++i;
        continue;
      }
      if (length == 1) {
        WriteAscii(text[i]);
      } else {
        out_.append(text.data() + i, length);
      }
      i += length;
    }
    out_ += '"';
  }

  void WriteAscii(char c) {
    switch (c) {
      case '"':
        out_ += "\\\"";
        break;
      case '\\':
        out_ += "\\\\";
        break;
      case '\b':
        out_ += "\\b";
        break;
      case '\f':
        out_ += "\\f";
        break;
      case '\n':
        out_ += "\\n";
        break;
      case '\r':
        out_ += "\\r";
        break;
      case '\t':
        out_ += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          absl::StrAppendFormat(&out_, "\\u%04x", c);
        } else {
          out_ += c;
        }
    }
  }

  // As Python's repr: the fewest digits that give the same double back; plain
  // notation for 1e-4 <= |value| < 1e16, else an exponent of two digits or
  // more.
  void WriteFloat(double value) {
    if (!std::isfinite(value)) {
      out_ += style_.nan_as_null  ? "null"
              : std::isnan(value) ? "NaN"
              : value > 0         ? "Infinity"
                                  : "-Infinity";
      return;
    }
    char buffer[32];  // "-d.ddddddddddddddddde-ddd" has 25
    const auto [end, error] = std::to_chars(
        buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
    SY_CHECK(error == std::errc());
    absl::string_view text(buffer, static_cast<size_t>(end - buffer));
    const size_t e = text.find('e');
    const int exponent = std::atoi(std::string(text.substr(e + 1)).c_str());
    if (exponent < -4 || exponent >= 16) {
      absl::StrAppend(&out_, text);  // to_chars writes e-07, e+16 too
      return;
    }
    std::string digits;
    for (const char c : text.substr(0, e)) {
      if (absl::ascii_isdigit(static_cast<unsigned char>(c))) digits += c;
    }
    if (text.front() == '-') out_ += '-';
    if (exponent < 0) {
      absl::StrAppend(&out_, "0.", std::string(-exponent - 1, '0'), digits);
      return;
    }
    const size_t whole =
        static_cast<size_t>(exponent) + 1;  // digits before "."
    if (digits.size() <= whole) digits.append(whole - digits.size() + 1, '0');
    absl::StrAppend(&out_, digits.substr(0, whole), ".", digits.substr(whole));
  }

  const Style& style_;
  std::string out_;
};

std::string Dump(const Json& value, const Style& style) {
  Writer writer(style);
  writer.Write(value);
  return writer.Take();
}

}  // namespace

absl::StatusOr<Json> ParseJson(absl::string_view text, JsonLimits limits) {
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON of ", text.size(), " bytes is longer than the ",
                     limits.max_bytes, " allowed"));
  }
  // nlohmann's lexer takes NUL for the end, and would ignore what follows.
  if (const size_t nul = text.find('\0'); nul != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("JSON at byte ", nul, ": a NUL character"));
  }
  Builder builder(limits.max_depth);
  if (Json::sax_parse(text.begin(), text.end(), &builder)) {
    return builder.TakeResult();
  }
  if (builder.too_deep()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "JSON at byte ", OffsetOfDepth(text, limits.max_depth),
        ": nested deeper than the ", limits.max_depth, " levels allowed"));
  }
  return absl::InvalidArgumentError(absl::StrCat("JSON ", builder.error()));
}

std::string DumpJsonLikePython(const Json& value) {
  static constexpr Style kPython{", ", ": ", /*nan_as_null=*/false};
  return Dump(value, kPython);
}

std::string DumpJson(const Json& value) {
  static constexpr Style kCompact{",", ":", /*nan_as_null=*/true};
  return Dump(value, kCompact);
}

}  // namespace switchyard
