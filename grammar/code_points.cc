#include "grammar/code_points.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "text/utf8.h"

namespace switchyard::grammar {
namespace {

constexpr char32_t kFirstSurrogate = 0xD800;
constexpr char32_t kLastSurrogate = 0xDFFF;

std::string Utf8(char32_t c) {
  std::string bytes;
  text::AppendUtf8(c, &bytes);
  return bytes;
}

// Byte sequences for [low, high], both of `size` bytes in UTF-8: split until
// all bytes but a common beginning run over everything that they can be.
void AppendUtf8Range(char32_t low, char32_t high, size_t size,
                     std::vector<Expression>* out) {
  for (size_t i = 1; i < size; ++i) {
    const char32_t mask = (char32_t{1} << (6 * i)) - 1;
    if ((low & ~mask) == (high & ~mask)) continue;
    if ((low & mask) != 0) {
      AppendUtf8Range(low, low | mask, size, out);
      AppendUtf8Range((low | mask) + 1, high, size, out);
      return;
    }
    if ((high & mask) != mask) {
      AppendUtf8Range(low, (high & ~mask) - 1, size, out);
      AppendUtf8Range(high & ~mask, high, size, out);
      return;
    }
  }
  const std::string first = Utf8(low), last = Utf8(high);
  std::vector<Expression> bytes;
  for (size_t i = 0; i < size; ++i) {
    bytes.push_back(
        Byte(static_cast<uint8_t>(first[i]), static_cast<uint8_t>(last[i])));
  }
  out->push_back(Sequence(std::move(bytes)));
}

void AppendRaw(char32_t low, char32_t high, std::vector<Expression>* out) {
  constexpr char32_t kLastOfSize[] = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
  for (size_t size = 1; size <= 4 && low <= high; ++size) {
    const char32_t last = std::min(high, kLastOfSize[size - 1]);
    if (low > last) continue;
    AppendUtf8Range(low, last, size, out);
    low = last + 1;
  }
}

bool NeedsEscape(char32_t c) { return c < 0x20 || c == '"' || c == '\\'; }

std::string Escaped(char32_t c) {
  switch (c) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\b':
      return "\\b";
    case '\f':
      return "\\f";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return absl::StrFormat("\\u%04x", static_cast<unsigned>(c));
  }
}

Expression Bytes(absl::string_view characters) {
  std::vector<Expression> options;
  for (const char c : characters) {
    options.push_back(Byte(static_cast<uint8_t>(c), static_cast<uint8_t>(c)));
  }
  return Choice(std::move(options));
}

Expression HexDigits(int count) {
  return Repeat(Choice({Byte('0', '9'), Byte('a', 'f'), Byte('A', 'F')}), count,
                count);
}

}  // namespace

void CodePointSet::Add(char32_t low, char32_t high) {
  SY_CHECK(low <= high && high <= kLast);
  if (low < kFirstSurrogate && high > kLastSurrogate) {
    Add(low, kFirstSurrogate - 1);
    Add(kLastSurrogate + 1, high);
    return;
  }
  if (low >= kFirstSurrogate && low <= kLastSurrogate) low = kLastSurrogate + 1;
  if (high >= kFirstSurrogate && high <= kLastSurrogate) {
    high = kFirstSurrogate - 1;
  }
  if (low > high) return;
  std::vector<Range> merged;
  for (const Range& range : ranges_) {
    if (range.high + 1 < low || range.low > high + 1) {
      merged.push_back(range);
    } else {
      low = std::min(low, range.low);
      high = std::max(high, range.high);
    }
  }
  merged.push_back({low, high});
  std::sort(merged.begin(), merged.end(),
            [](const Range& a, const Range& b) { return a.low < b.low; });
  ranges_ = std::move(merged);
}

void CodePointSet::Add(const CodePointSet& other) {
  for (const Range& range : other.ranges_) Add(range.low, range.high);
}

CodePointSet CodePointSet::Inverted() const {
  CodePointSet out;
  char32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.low > next) out.Add(next, range.low - 1);
    next = range.high + 1;
  }
  if (next <= kLast) out.Add(next, kLast);
  return out;
}

Expression OneOf(const CodePointSet& set, TextForm form) {
  std::vector<Expression> options;
  for (const CodePointSet::Range& range : set.ranges()) {
    if (form == TextForm::kRaw) {
      AppendRaw(range.low, range.high, &options);
      continue;
    }
    char32_t low = range.low;
    for (char32_t c = low; c <= std::min<char32_t>(range.high, '\\'); ++c) {
      if (!NeedsEscape(c)) continue;
      if (c > low) AppendRaw(low, c - 1, &options);
      options.push_back(Literal(Escaped(c)));
      low = c + 1;
    }
    if (low <= range.high) AppendRaw(low, range.high, &options);
  }
  return Choice(std::move(options));
}

Expression Text(absl::string_view utf8, TextForm form) {
  if (form == TextForm::kRaw) return Literal(utf8);
  std::string escaped;
  for (const char c : utf8) {
    // Bytes of longer characters are above everything that is escaped.
    const uint8_t byte = static_cast<uint8_t>(c);
    if (NeedsEscape(byte)) {
      escaped += Escaped(byte);
    } else {
      escaped += c;
    }
  }
  return Literal(escaped);
}

Expression AnyJsonCharacter() {
  std::vector<Expression> options;
  CodePointSet plain = CodePointSet::Of(0x20, CodePointSet::kLast);
  CodePointSet escaped = CodePointSet::Of(0, 0x1F);
  escaped.Add('"', '"');
  escaped.Add('\\', '\\');
  plain = escaped.Inverted();
  const Expression d = Bytes("dD");
  const Expression low_half =
      Sequence({Literal("\\u"), d, Bytes("cdefCDEF"), HexDigits(2)});
  return Choice(
      {OneOf(plain, TextForm::kRaw),
       Sequence(
           {Literal("\\"),
            Choice(
                {Bytes("\"\\/bfnrt"),
                 Sequence({Literal("u"),
                           Choice({Sequence({Bytes("0123456789abcefABCEF"),
                                             HexDigits(3)}),
                                   Sequence({d, Byte('0', '7'), HexDigits(2)}),
                                   Sequence({d, Bytes("89abAB"), HexDigits(2),
                                             low_half})})})})})});
}

}  // namespace switchyard::grammar
