// Checks one JSON value byte by byte, as the model writes it. In repair mode it
// also gives out text that can be closed into valid JSON at any moment.

#ifndef SWITCHYARD_ROUTER_TEXT_JSON_SCANNER_H_
#define SWITCHYARD_ROUTER_TEXT_JSON_SCANNER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace switchyard::router {

// One value. Not thread-safe. Every byte costs constant time.
class JsonScanner {
 public:
  enum class Mode {
    kStrict,  // RFC 8259; surrogates in pairs
    // Strict, except that it mends what models get wrong: raw control
    // characters and backslashes in strings are escaped, a lone surrogate
    // becomes U+FFFD, a comma before a closing bracket is dropped.
    kRepair,
  };
  enum class Result {
    kMore,        // the byte was taken
    kDone,        // the byte was taken, and the value is complete
    kDoneBefore,  // the value (a number) was complete; the byte is not part of
                  // it
    kError,       // the byte cannot be part of the value, and was not taken
  };

  explicit JsonScanner(Mode mode) : mode_(mode) {}

  // Not after kDone, kDoneBefore or kError. Appends to `*out` what is certain
  // to be part of the value now; may be null.
  Result Push(char byte, std::string* out);

  // Within a string, outside of an escape sequence?
  bool in_string() const { return state_ == State::kString; }

  // Repair mode: appends what makes everything given out so far a complete
  // value. The value was not complete, and at least one byte was taken.
  void Close(std::string* out);

  // Instead of Close(): appends what was taken and not given out, as it is.
  void CutOff(std::string* out) const;

  // Text taken but not given out: a comma, or the key of a member whose value
  // has not begun. After Close() it is not part of the value.
  const std::string& held() const { return held_; }

 private:
  enum class State {
    kValue,         // a value must come
    kValueOrEnd,    // just after [
    kKey,           // a key must come (after a comma)
    kKeyOrEnd,      // just after {
    kColon,         // after a key
    kCommaOrEnd,    // after a value within a container
    kString,        // also a key's
    kEscape,        // after a backslash; escape_ has what came so far
    kLowSurrogate,  // after \uD83D: \uDExx must come
    kLiteral,       // true, false, null
    kMinus,         // of a number: after the sign
    kZero,          // a number that begins with 0
    kInteger,
    kPoint,  // after the decimal point
    kFraction,
    kExponent,  // after e
    kExponentSign,
    kExponentDigits,
  };

  Result PushToken(char byte, std::string* out);
  Result BeginValue(char byte, std::string* out);
  Result EndContainer(char bracket, std::string* out);
  Result PushString(char byte, std::string* out);
  Result PushEscape(char byte, std::string* out);
  Result EndEscape(std::string* out);
  Result PushLowSurrogate(char byte, std::string* out);
  Result PushNumber(char byte, std::string* out);
  Result EndOfValue();
  // The escape in escape_ is wrong: its backslash stands for itself.
  void MendEscape(std::string* out);

  // Keys wait in held_ for their value; everything else goes out.
  void Emit(absl::string_view text, std::string* out);
  void EmitHeld(std::string* out);
  bool InObject() const { return !open_.empty() && open_.back() == '}'; }

  const Mode mode_;
  State state_ = State::kValue;
  std::vector<char> open_;  // the closing brackets that are due
  bool string_is_key_ = false;
  std::string escape_;              // from the backslash on
  std::string high_surrogate_;      // "\uD83D" while its other half is due
  absl::string_view literal_rest_;  // of true, false, null
  std::string held_;
};

// The beginning of a JSON value, made a whole one as by Close(); of what fits
// nowhere, and behind it, nothing is left.
std::string CloseJson(absl::string_view beginning);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TEXT_JSON_SCANNER_H_
