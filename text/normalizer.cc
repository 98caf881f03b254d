#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "text/utf8.h"

namespace switchyard::text {
namespace {

// The lead byte of U+0300. Below it every character is a starter, is its own
// normal form, and never combines with the character before it.
constexpr uint8_t kFirstLeadThatMatters = 0xCC;

bool IsContinuation(char byte) {
  return (static_cast<uint8_t>(byte) & 0xC0) == 0x80;
}

const auto kOptions =
    static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

int CombiningClass(int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

// utf8proc orders the marks after a starter by swapping neighbours, which is
// quadratic: 10 MB of alternating marks would take hours. So each run is
// sorted here, and utf8proc only decomposes and composes.
void SortMarks(std::vector<int32_t>* code_points, int64_t* steps) {
  const auto is_mark = [](int32_t c) { return CombiningClass(c) != 0; };
  auto begin = code_points->begin();
  while (true) {
    begin = std::find_if(begin, code_points->end(), is_mark);
    if (begin == code_points->end()) return;
    const auto end = std::find_if_not(begin, code_points->end(), is_mark);
    std::stable_sort(begin, end, [steps](int32_t a, int32_t b) {
      ++*steps;
      return CombiningClass(a) < CombiningClass(b);
    });
    begin = end;
  }
}

void AppendComposed(absl::string_view text, int64_t* steps, std::string* out) {
  std::vector<int32_t> code_points;
  code_points.reserve(text.size() / 2);
  int last_boundclass = UTF8PROC_BOUNDCLASS_START;
  while (!text.empty()) {
    const Utf8Character character = DecodeUtf8(text);
    text.remove_prefix(character.length);
    ++*steps;
    // No canonical decomposition has more than 4 code points.
    int32_t parts[8];
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(static_cast<int32_t>(character.code_point),
                                parts, 8, kOptions, &last_boundclass);
    SY_CHECK(count >= 0 && count <= 8);
    code_points.insert(code_points.end(), parts, parts + count);
  }
  SortMarks(&code_points, steps);
  const utf8proc_ssize_t length = utf8proc_normalize_utf32(
      code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()),
      kOptions);
  SY_CHECK(length >= 0);
  for (utf8proc_ssize_t i = 0; i < length; ++i) {
    AppendUtf8(static_cast<char32_t>(code_points[i]), out);
  }
}

}  // namespace

std::string NormalizeNfc(absl::string_view text, int64_t* steps) {
  int64_t ignored_steps = 0;
  if (steps == nullptr) steps = &ignored_steps;
  std::string out;
  out.reserve(text.size());
  size_t copied = 0;
  while (true) {
    // The next character that matters, and the one before it, which may be the
    // starter that it combines with.
    size_t begin = copied;
    while (begin < text.size() &&
           (static_cast<uint8_t>(text[begin]) < kFirstLeadThatMatters)) {
      ++begin;
    }
    *steps += static_cast<int64_t>(begin - copied);
    if (begin == text.size()) break;
    size_t end = begin;
    while (end < text.size() &&
           (static_cast<uint8_t>(text[end]) >= kFirstLeadThatMatters ||
            IsContinuation(text[end]))) {
      ++end;
    }
    if (begin > copied) {
      --begin;
      while (begin > copied && IsContinuation(text[begin])) --begin;
    }
    out.append(text.data() + copied, begin - copied);
    AppendComposed(text.substr(begin, end - begin), steps, &out);
    copied = end;
  }
  out.append(text.data() + copied, text.size() - copied);
  return out;
}

}  // namespace switchyard::text
