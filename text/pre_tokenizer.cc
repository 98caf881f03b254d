#include "text/pre_tokenizer.h"

// The 8-bit library: UTF-8.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "text/utf8.h"

namespace switchyard::text {

const absl::string_view kQwenExpression =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {

enum class CharacterClass {
  kLetter,   // \p{L}
  kNumber,   // \p{N}
  kNewline,  // CR or LF, which are white space too
  kSpace,    // other \s
  kOther,    // marks, symbols, controls, unassigned
};

// The property White_Space, which has not changed since Unicode 6.3; utf8proc
// does not carry it.
bool IsWhiteSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

CharacterClass AsciiClassOf(char32_t c) {
  if (c == '\r' || c == '\n') return CharacterClass::kNewline;
  if ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') return CharacterClass::kLetter;
  if (c >= '0' && c <= '9') return CharacterClass::kNumber;
  return IsWhiteSpace(c) ? CharacterClass::kSpace : CharacterClass::kOther;
}

const std::array<CharacterClass, 128> kAsciiClasses = [] {
  std::array<CharacterClass, 128> classes;
  for (char32_t c = 0; c < classes.size(); ++c) classes[c] = AsciiClassOf(c);
  return classes;
}();

// Of characters beyond ASCII.
CharacterClass ClassOf(char32_t c) {
  if (IsWhiteSpace(c)) return CharacterClass::kSpace;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
      return CharacterClass::kLetter;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
      return CharacterClass::kNumber;
    default:
      return CharacterClass::kOther;
  }
}

bool IsSpaceOrNewline(CharacterClass c) {
  return c == CharacterClass::kSpace || c == CharacterClass::kNewline;
}

// kQwenExpression by hand. Every method takes a byte offset and returns the end
// of what it matched there, or the offset itself when it matched nothing. Each
// character is looked at a bounded number of times, whatever the text.
class QwenScanner {
 public:
  QwenScanner(absl::string_view text, int64_t* steps)
      : text_(text), steps_(steps) {}

  // The end of the word that begins at `begin`, by the expression's
  // alternatives in their order.
  size_t WordEnd(size_t begin) {
    const Character first = At(begin);
    if (text_[begin] == '\'') {
      const size_t end = Contraction(begin);
      if (end != begin) return end;
    }
    if (first.kind == CharacterClass::kLetter) {
      return RunOf(CharacterClass::kLetter, first.end);
    }
    if (first.kind == CharacterClass::kNumber) return first.end;
    if (first.kind != CharacterClass::kNewline && first.end < text_.size()) {
      const Character second = At(first.end);
      if (second.kind == CharacterClass::kLetter) {
        return RunOf(CharacterClass::kLetter, second.end);
      }
      if (text_[begin] == ' ' && second.kind == CharacterClass::kOther) {
        return NewlinesAfter(RunOf(CharacterClass::kOther, second.end));
      }
    }
    if (first.kind == CharacterClass::kOther) {
      return NewlinesAfter(RunOf(CharacterClass::kOther, first.end));
    }
    return WhiteSpace(begin);
  }

 private:
  struct Character {
    CharacterClass kind;
    size_t end;
  };

  Character At(size_t offset) {
    ++*steps_;
    const auto byte = static_cast<uint8_t>(text_[offset]);
    if (byte < kAsciiClasses.size()) return {kAsciiClasses[byte], offset + 1};
    const Utf8Character character = DecodeUtf8(text_.substr(offset));
    return {ClassOf(character.code_point), offset + character.length};
  }

  // (?i:'s|'t|'re|'ve|'m|'ll|'d)
  size_t Contraction(size_t begin) const {
    const absl::string_view rest = text_.substr(begin + 1);
    for (absl::string_view suffix :
         {"s", "t", "re", "ve", "m", "ll", "d",
          // U+017F LATIN SMALL LETTER LONG S, whose upper case is S too.
          "\xC5\xBF"}) {
      if (absl::StartsWithIgnoreCase(rest, suffix)) {
        return begin + 1 + suffix.size();
      }
    }
    return begin;
  }

  size_t RunOf(CharacterClass kind, size_t begin) {
    size_t end = begin;
    while (end < text_.size()) {
      const Character character = At(end);
      if (character.kind != kind) break;
      end = character.end;
    }
    return end;
  }

  size_t NewlinesAfter(size_t begin) {
    size_t end = begin;
    while (end < text_.size() && (text_[end] == '\r' || text_[end] == '\n')) {
      ++end;
    }
    return end;
  }

  // \s*[\r\n]+|\s+(?!\S)|\s+
  size_t WhiteSpace(size_t begin) {
    size_t last_newline_end = begin;
    size_t last_begin = begin;
    size_t end = begin;
    while (end < text_.size()) {
      const Character character = At(end);
      if (!IsSpaceOrNewline(character.kind)) break;
      last_begin = end;
      end = character.end;
      if (character.kind == CharacterClass::kNewline) last_newline_end = end;
    }
    if (last_newline_end != begin) return last_newline_end;
    // The last one belongs to the word that follows, if there is one.
    if (end == text_.size() || last_begin == begin) return end;
    return last_begin;
  }

  const absl::string_view text_;
  int64_t* const steps_;
};

class QwenPreTokenizer final : public PreTokenizer {
 public:
  void Split(absl::string_view text,
             absl::FunctionRef<void(absl::string_view)> word,
             int64_t* steps) const override {
    QwenScanner scanner(text, steps);
    size_t begin = 0;
    while (begin < text.size()) {
      const size_t end = scanner.WordEnd(begin);
      SY_DCHECK(end > begin);
      word(text.substr(begin, end - begin));
      begin = end;
    }
  }
};

// Backtracking points per match. A match over 10 MB of one class needs about
// one for each character.
constexpr uint32_t kMatchLimit = 100'000'000;
// Bytes of the JIT's stack: at first, and at most.
constexpr size_t kJitStackInitialBytes = 32 << 10;
constexpr size_t kJitStackMaxBytes = 64 << 20;
// KiB of heap that a match without the JIT may use.
constexpr uint32_t kHeapLimitKib = 1 << 20;

struct Pcre2Deleter {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
template <typename T>
using Pcre2Ptr = std::unique_ptr<T, Pcre2Deleter>;

class Pcre2PreTokenizer final : public PreTokenizer {
 public:
  explicit Pcre2PreTokenizer(Pcre2Ptr<pcre2_code> code)
      : code_(std::move(code)) {}

  void Split(absl::string_view text,
             absl::FunctionRef<void(absl::string_view)> word,
             int64_t* steps) const override {
    const Pcre2Ptr<pcre2_match_data> match(
        pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    const Pcre2Ptr<pcre2_match_context> context(
        pcre2_match_context_create(nullptr));
    const Pcre2Ptr<pcre2_jit_stack> stack(pcre2_jit_stack_create(
        kJitStackInitialBytes, kJitStackMaxBytes, nullptr));
    SY_CHECK(match != nullptr && context != nullptr);
    pcre2_set_match_limit(context.get(), kMatchLimit);
    pcre2_set_heap_limit(context.get(), kHeapLimitKib);
    if (stack != nullptr) {
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
    }
    size_t done = 0;
    while (done < text.size()) {
      ++*steps;
      Range found = Find(text, done, match.get(), context.get());
      // Behaviour "Isolated": what lies between two matches is a word too.
      if (found.begin > done) word(text.substr(done, found.begin - done));
      if (found.end > found.begin) {
        word(text.substr(found.begin, found.end - found.begin));
      }
      done = found.end;
    }
  }

 private:
  struct Range {
    size_t begin;
    size_t end;
  };

  // The next match that is not empty; the end of the text where there is none,
  // or where the expression exceeds the limits.
  Range Find(absl::string_view text, size_t from, pcre2_match_data* match,
             pcre2_match_context* context) const {
    const auto run = [&](uint32_t options) {
      return pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                         text.size(), from, options, match, context);
    };
    constexpr uint32_t kOptions = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    int rc = run(kOptions);
    // The interpreter keeps its backtracking points on the heap.
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = run(kOptions | PCRE2_NO_JIT);
    if (rc < 0) return {text.size(), text.size()};
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(match);
    // \K may move a match's begin before `from` or behind its end.
    const size_t end = std::max<size_t>(offsets[1], from + 1);
    return {std::min(std::max<size_t>(offsets[0], from), end),
            std::min(end, text.size())};
  }

  const Pcre2Ptr<pcre2_code> code_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::Create(
    absl::string_view expression) {
  if (expression == kQwenExpression) {
    return std::unique_ptr<PreTokenizer>(new QwenPreTokenizer);
  }
  return CreateWithPcre2(expression);
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> PreTokenizer::CreateWithPcre2(
    absl::string_view expression) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  Pcre2Ptr<pcre2_code> code(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
      nullptr));
  if (code == nullptr) {
    PCRE2_UCHAR text[256];  // longest message of PCRE2: about 100 bytes
    pcre2_get_error_message(error, text, sizeof(text));
    return absl::InvalidArgumentError(
        absl::StrCat("the expression does not compile at byte ", offset, ": ",
                     reinterpret_cast<const char*>(text)));
  }
  // Where the JIT is missing (PCRE2_ERROR_JIT_BADOPTION) matching still works.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return std::unique_ptr<PreTokenizer>(new Pcre2PreTokenizer(std::move(code)));
}

}  // namespace switchyard::text
