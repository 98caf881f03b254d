// UTF-8 that may be wrong: decoding with U+FFFD for every maximal invalid
// subpart (Unicode 15, section 3.9; what Rust's from_utf8_lossy and Python's
// "replace" do).

#ifndef SWITCHYARD_TEXT_UTF8_H_
#define SWITCHYARD_TEXT_UTF8_H_

#include <string>

#include "absl/strings/string_view.h"

namespace switchyard::text {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;
inline constexpr absl::string_view kReplacementUtf8 = "\xEF\xBF\xBD";

struct Utf8Character {
  enum class Kind {
    kValid,
    kInvalid,     // `length` bytes that no continuation makes valid
    kIncomplete,  // the text ends within a so far valid sequence
  };
  char32_t code_point = kReplacementCharacter;  // unless kValid
  int length = 0;                               // bytes, 1 to 4
  Kind kind = Kind::kInvalid;
};

// The first character of `text`, which is not empty.
Utf8Character DecodeUtf8(absl::string_view text);

bool IsValidUtf8(absl::string_view text);

// Every maximal invalid subpart becomes one U+FFFD.
std::string ReplaceInvalidUtf8(absl::string_view text);

void AppendUtf8(char32_t code_point, std::string* out);

}  // namespace switchyard::text

#endif  // SWITCHYARD_TEXT_UTF8_H_
