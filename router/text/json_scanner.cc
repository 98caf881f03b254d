#include "router/text/json_scanner.h"

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"

namespace switchyard::router {
namespace {

// Of nested containers; ParseJson's limit is 128.
constexpr size_t kMaxDepth = 100;

bool IsJsonSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

bool IsControl(char c) { return static_cast<uint8_t>(c) < 0x20; }

// The four hexadecimal digits of "\uXXXX".
uint32_t CodeUnit(absl::string_view escape) {
  uint32_t value = 0;
  for (const char c : escape.substr(2, 4)) {
    value = value << 4 |
            static_cast<uint32_t>(absl::ascii_isdigit(c)
                                      ? c - '0'
                                      : absl::ascii_tolower(c) - 'a' + 10);
  }
  return value;
}
bool IsHighSurrogate(uint32_t unit) { return unit >> 10 == 0xD800 >> 10; }
bool IsLowSurrogate(uint32_t unit) { return unit >> 10 == 0xDC00 >> 10; }

// The escape of U+FFFD.
constexpr absl::string_view kEscapedReplacement = "\\ufffd";

}  // namespace

void JsonScanner::Emit(absl::string_view text, std::string* out) {
  if (string_is_key_) {
    absl::StrAppend(&held_, text);
  } else if (out != nullptr) {
    absl::StrAppend(out, text);
  }
}

void JsonScanner::EmitHeld(std::string* out) {
  if (out != nullptr) out->append(held_);
  held_.clear();
}

JsonScanner::Result JsonScanner::Push(char byte, std::string* out) {
  switch (state_) {
    case State::kString:
      return PushString(byte, out);
    case State::kEscape:
      return PushEscape(byte, out);
    case State::kLowSurrogate:
      return PushLowSurrogate(byte, out);
    case State::kLiteral:
      if (byte != literal_rest_[0]) return Result::kError;
      Emit(literal_rest_.substr(0, 1), out);
      literal_rest_.remove_prefix(1);
      return literal_rest_.empty() ? EndOfValue() : Result::kMore;
    case State::kMinus:
    case State::kZero:
    case State::kInteger:
    case State::kPoint:
    case State::kFraction:
    case State::kExponent:
    case State::kExponentSign:
    case State::kExponentDigits:
      return PushNumber(byte, out);
    default:
      return PushToken(byte, out);
  }
}

// Between strings, numbers and literals.
JsonScanner::Result JsonScanner::PushToken(char byte, std::string* out) {
  if (IsJsonSpace(byte)) {
    held_.push_back(byte);
    return Result::kMore;
  }
  switch (state_) {
    case State::kValue:
      // In repair mode "[1,]" ends like "[1]".
      if (byte == ']' && mode_ == Mode::kRepair && !open_.empty() &&
          !InObject()) {
        return EndContainer(byte, out);
      }
      return BeginValue(byte, out);
    case State::kValueOrEnd:
      if (byte == ']') return EndContainer(byte, out);
      return BeginValue(byte, out);
    case State::kKey:
    case State::kKeyOrEnd:
      if (byte == '}' &&
          (state_ == State::kKeyOrEnd || mode_ == Mode::kRepair)) {
        return EndContainer(byte, out);
      }
      if (byte != '"') return Result::kError;
      held_.push_back(byte);
      string_is_key_ = true;
      state_ = State::kString;
      return Result::kMore;
    case State::kColon:
      if (byte != ':') return Result::kError;
      held_.push_back(byte);
      state_ = State::kValue;
      return Result::kMore;
    case State::kCommaOrEnd:
      if (byte == open_.back()) return EndContainer(byte, out);
      if (byte != ',') return Result::kError;
      held_.push_back(byte);
      state_ = InObject() ? State::kKey : State::kValue;
      return Result::kMore;
    default:
      break;
  }
  SY_CHECK(false);
  return Result::kError;
}

JsonScanner::Result JsonScanner::BeginValue(char byte, std::string* out) {
  const auto begin = [&](State next) {
    EmitHeld(out);
    Emit(absl::string_view(&byte, 1), out);
    state_ = next;
    return Result::kMore;
  };
  switch (byte) {
    case '{':
    case '[':
      if (open_.size() >= kMaxDepth) return Result::kError;
      open_.push_back(byte == '{' ? '}' : ']');
      return begin(byte == '{' ? State::kKeyOrEnd : State::kValueOrEnd);
    case '"':
      return begin(State::kString);
    case 't':
      literal_rest_ = "rue";
      return begin(State::kLiteral);
    case 'f':
      literal_rest_ = "alse";
      return begin(State::kLiteral);
    case 'n':
      literal_rest_ = "ull";
      return begin(State::kLiteral);
    case '-':
      return begin(State::kMinus);
    case '0':
      return begin(State::kZero);
    default:
      if (!absl::ascii_isdigit(byte)) return Result::kError;
      return begin(State::kInteger);
  }
}

JsonScanner::Result JsonScanner::EndContainer(char bracket, std::string* out) {
  const size_t comma = held_.find(',');  // only in repair mode
  if (comma != std::string::npos) held_.erase(comma, 1);
  EmitHeld(out);
  Emit(absl::string_view(&bracket, 1), out);
  open_.pop_back();
  return EndOfValue();
}

JsonScanner::Result JsonScanner::EndOfValue() {
  state_ = State::kCommaOrEnd;
  return open_.empty() ? Result::kDone : Result::kMore;
}

JsonScanner::Result JsonScanner::PushString(char byte, std::string* out) {
  if (byte == '\\') {
    escape_.assign(1, '\\');
    state_ = State::kEscape;
    return Result::kMore;
  }
  if (byte == '"') {
    Emit("\"", out);
    if (string_is_key_) {
      string_is_key_ = false;
      state_ = State::kColon;
      return Result::kMore;
    }
    return EndOfValue();
  }
  if (!IsControl(byte)) {
    Emit(absl::string_view(&byte, 1), out);
    return Result::kMore;
  }
  if (mode_ == Mode::kStrict) return Result::kError;
  if (byte == '\n') {
    Emit("\\n", out);
  } else if (byte == '\t') {
    Emit("\\t", out);
  } else if (byte == '\r') {
    Emit("\\r", out);
  } else {
    Emit(absl::StrFormat("\\u%04x", static_cast<uint8_t>(byte)), out);
  }
  return Result::kMore;
}

JsonScanner::Result JsonScanner::PushEscape(char byte, std::string* out) {
  const bool expected =
      escape_.size() == 1
          ? absl::StrContains("\"\\/bfnrtu", absl::string_view(&byte, 1))
          : absl::ascii_isxdigit(static_cast<unsigned char>(byte));
  if (!expected) {
    if (mode_ == Mode::kStrict) return Result::kError;
    MendEscape(out);
    return PushString(byte, out);
  }
  escape_.push_back(byte);
  // "\n" is complete; "\u" has four digits to come.
  if (escape_[1] == 'u' && escape_.size() < 6) return Result::kMore;
  return EndEscape(out);
}

JsonScanner::Result JsonScanner::EndEscape(std::string* out) {
  const bool is_unit = escape_[1] == 'u';
  const uint32_t unit = is_unit ? CodeUnit(escape_) : 0;
  if (!high_surrogate_.empty()) {
    if (is_unit && IsLowSurrogate(unit)) {
      Emit(absl::StrCat(high_surrogate_, escape_), out);
      high_surrogate_.clear();
      state_ = State::kString;
      return Result::kMore;
    }
    if (mode_ == Mode::kStrict) return Result::kError;
    Emit(kEscapedReplacement, out);
    high_surrogate_.clear();
  }
  if (is_unit && IsHighSurrogate(unit)) {
    high_surrogate_ = escape_;
    state_ = State::kLowSurrogate;
    return Result::kMore;
  }
  if (is_unit && IsLowSurrogate(unit)) {
    if (mode_ == Mode::kStrict) return Result::kError;
    Emit(kEscapedReplacement, out);
  } else {
    Emit(escape_, out);
  }
  state_ = State::kString;
  return Result::kMore;
}

JsonScanner::Result JsonScanner::PushLowSurrogate(char byte, std::string* out) {
  if (byte == '\\') {
    escape_.assign(1, '\\');
    state_ = State::kEscape;
    return Result::kMore;
  }
  if (mode_ == Mode::kStrict) return Result::kError;
  Emit(kEscapedReplacement, out);
  high_surrogate_.clear();
  state_ = State::kString;
  return PushString(byte, out);
}

void JsonScanner::MendEscape(std::string* out) {
  if (!high_surrogate_.empty()) Emit(kEscapedReplacement, out);
  high_surrogate_.clear();
  Emit(absl::StrCat("\\", escape_), out);
  escape_.clear();
  state_ = State::kString;
}

JsonScanner::Result JsonScanner::PushNumber(char byte, std::string* out) {
  const bool digit = absl::ascii_isdigit(static_cast<unsigned char>(byte));
  const bool exponent = byte == 'e' || byte == 'E';
  const auto go = [&](State next) {
    Emit(absl::string_view(&byte, 1), out);
    state_ = next;
    return Result::kMore;
  };
  switch (state_) {
    case State::kMinus:
      if (!digit) return Result::kError;
      return go(byte == '0' ? State::kZero : State::kInteger);
    case State::kInteger:
      if (digit) return go(State::kInteger);
      [[fallthrough]];
    case State::kZero:
      if (byte == '.') return go(State::kPoint);
      if (exponent) return go(State::kExponent);
      break;
    case State::kPoint:
      if (!digit) return Result::kError;
      return go(State::kFraction);
    case State::kFraction:
      if (digit) return go(State::kFraction);
      if (exponent) return go(State::kExponent);
      break;
    case State::kExponent:
      if (byte == '+' || byte == '-') return go(State::kExponentSign);
      [[fallthrough]];
    case State::kExponentSign:
      if (!digit) return Result::kError;
      return go(State::kExponentDigits);
    default:
      if (digit) return go(State::kExponentDigits);
      break;
  }
  if (open_.empty()) return Result::kDoneBefore;
  state_ = State::kCommaOrEnd;
  return PushToken(byte, out);
}

void JsonScanner::CutOff(std::string* out) const {
  out->append(held_);
  if (state_ == State::kEscape || state_ == State::kLowSurrogate) {
    out->append(high_surrogate_);
  }
  if (state_ == State::kEscape) out->append(escape_);
}

void JsonScanner::Close(std::string* out) {
  switch (state_) {
    case State::kEscape:
    case State::kLowSurrogate:
    case State::kString:
      if (string_is_key_) break;
      if (state_ == State::kEscape) MendEscape(out);
      if (!high_surrogate_.empty()) Emit(kEscapedReplacement, out);
      Emit("\"", out);
      break;
    case State::kLiteral:
      Emit(literal_rest_, out);
      break;
    case State::kMinus:
    case State::kPoint:
    case State::kExponent:
    case State::kExponentSign:
      Emit("0", out);
      break;
    default:
      break;
  }
  string_is_key_ = false;  // an unfinished key stays in held_
  for (; !open_.empty(); open_.pop_back()) {
    Emit(absl::string_view(&open_.back(), 1), out);
  }
}

std::string CloseJson(absl::string_view beginning) {
  JsonScanner scanner(JsonScanner::Mode::kRepair);
  std::string whole;
  for (const char byte : beginning) {
    const JsonScanner::Result result = scanner.Push(byte, &whole);
    if (result == JsonScanner::Result::kError) break;
    if (result != JsonScanner::Result::kMore) return whole;
  }
  if (!whole.empty()) scanner.Close(&whole);
  return whole;
}

}  // namespace switchyard::router
