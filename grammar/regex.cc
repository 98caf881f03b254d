#include "grammar/regex.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "base/status_macros.h"
#include "text/utf8.h"

namespace switchyard::grammar {
namespace {

constexpr int kMaxDepth = 100;
// Higher counts exceed the budget anyhow; this keeps arithmetic within an int.
constexpr int kMaxCount = 100'000;

CodePointSet Digits() { return CodePointSet::Of('0', '9'); }

CodePointSet WordCharacters() {
  CodePointSet set = Digits();
  set.Add('A', 'Z');
  set.Add('a', 'z');
  set.Add('_', '_');
  return set;
}

// JavaScript's white space and line ends.
CodePointSet Spaces() {
  CodePointSet set = CodePointSet::Of('\t', '\r');
  for (const char32_t c :
       {0x20, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000, 0xFEFF}) {
    set.Add(c, c);
  }
  set.Add(0x2000, 0x200A);
  return set;
}

class Parser {
 public:
  Parser(absl::string_view pattern, TextForm form, RegexMatch match,
         Budget* budget)
      : pattern_(pattern), form_(form), match_(match), budget_(budget) {}

  absl::StatusOr<Expression> Parse() {
    if (!text::IsValidUtf8(pattern_)) {
      return absl::InvalidArgumentError("the expression is not valid UTF-8");
    }
    std::vector<Expression> options;
    do {
      const bool from_start = Consume('^');
      SY_ASSIGN_OR_RETURN(Expression body, ParseSequence(0));
      const bool to_end = Consume('$');
      if (match_ == RegexMatch::kSearch) {
        const Expression any = Repeat(OneOf(CodePointSet::All(), form_), 0, -1);
        body = Sequence({from_start ? Empty() : any, std::move(body),
                         to_end ? Empty() : any});
      }
      options.push_back(std::move(body));
    } while (Consume('|'));
    if (at_ == pattern_.size()) return Choice(std::move(options));
    return Error(pattern_[at_] == ')' ? "a ) without its ("
                                      : "^ and $ are supported only at the "
                                        "ends of an alternative of the whole");
  }

 private:
  absl::Status Error(absl::string_view what) const {
    return absl::InvalidArgumentError(
        absl::StrCat("at byte ", at_, " of the expression: ", what));
  }

  bool AtEnd() const { return at_ == pattern_.size(); }
  char Peek() const { return AtEnd() ? '\0' : pattern_[at_]; }
  bool Consume(char c) {
    if (AtEnd() || pattern_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool ConsumeText(absl::string_view what) {
    if (pattern_.substr(at_, what.size()) != what) return false;
    at_ += what.size();
    return true;
  }
  char32_t TakeCharacter() {
    const text::Utf8Character c = text::DecodeUtf8(pattern_.substr(at_));
    at_ += c.length;
    return c.code_point;
  }

  absl::StatusOr<Expression> ParseAlternatives(int depth) {
    if (depth > kMaxDepth) return Error("groups are nested too deeply");
    std::vector<Expression> options;
    do {
      SY_ASSIGN_OR_RETURN(Expression body, ParseSequence(depth));
      options.push_back(std::move(body));
    } while (Consume('|'));
    return Choice(std::move(options));
  }

  absl::StatusOr<Expression> ParseSequence(int depth) {
    std::vector<Expression> parts;
    while (!AtEnd() && Peek() != '|' && Peek() != ')' && Peek() != '$' &&
           Peek() != '^') {
      SY_RETURN_IF_ERROR(budget_->Spend(1));
      SY_ASSIGN_OR_RETURN(Expression atom, ParseAtom(depth));
      SY_ASSIGN_OR_RETURN(atom, ParseQuantifiers(std::move(atom)));
      parts.push_back(std::move(atom));
    }
    return Sequence(std::move(parts));
  }

  absl::StatusOr<Expression> ParseAtom(int depth) {
    switch (Peek()) {
      case '(':
        return ParseGroup(depth);
      case '[': {
        ++at_;
        SY_ASSIGN_OR_RETURN(const CodePointSet set, ParseClass());
        return OneOf(set, form_);
      }
      case '.':
        ++at_;
        return OneOf(CodePointSet::Of('\n', '\n').Inverted(), form_);
      case '\\': {
        ++at_;
        SY_ASSIGN_OR_RETURN(const CodePointSet set, ParseEscape(false));
        return OneOf(set, form_);
      }
      case '*':
      case '+':
      case '?':
        return Error("a quantifier without anything to repeat");
      default: {
        const char32_t c = TakeCharacter();
        return OneOf(CodePointSet::Of(c, c), form_);
      }
    }
  }

  absl::StatusOr<Expression> ParseGroup(int depth) {
    ++at_;
    if (Consume('?')) {
      const bool named = ConsumeText("P<") || (Peek() == '<' && !LooksBehind());
      if (named) {
        const size_t end = pattern_.find('>', at_);
        if (end == absl::string_view::npos)
          return Error("a name without its >");
        at_ = end + 1;
      } else if (!Consume(':')) {
        return Error(
            "only plain, named and (?: groups are supported; look-around and "
            "flags are not");
      }
    }
    SY_ASSIGN_OR_RETURN(Expression body, ParseAlternatives(depth + 1));
    if (Consume(')')) return body;
    return Error(AtEnd() ? "a ( without its )"
                         : "^ and $ are supported only at the ends of an "
                           "alternative of the whole");
  }

  bool LooksBehind() const {
    const absl::string_view next = pattern_.substr(at_, 2);
    return next == "<=" || next == "<!";
  }

  // -1 if there are no digits.
  int ParseCount() {
    int count = -1;
    while (!AtEnd() && Peek() >= '0' && Peek() <= '9') {
      count = std::min(std::max(count, 0) * 10 + (Peek() - '0'), kMaxCount);
      ++at_;
    }
    return count;
  }

  absl::StatusOr<Expression> ParseQuantifiers(Expression atom) {
    int min = 0, max = -1;
    if (Consume('*')) {
    } else if (Consume('+')) {
      min = 1;
    } else if (Consume('?')) {
      max = 1;
    } else if (Peek() == '{') {
      const size_t begin = at_++;
      min = ParseCount();
      max = min;
      if (Consume(',')) max = ParseCount();
      const bool empty = min < 0 && max < 0;
      if (empty || !Consume('}')) {
        at_ = begin;  // not a count: a brace like any other character
        return atom;
      }
      min = std::max(min, 0);
      if (max >= 0 && max < min) return Error("a count {m,n} with n below m");
    } else {
      return atom;
    }
    Consume('?');  // lazy: the same texts
    if (Peek() == '*' || Peek() == '+') {
      return Error("possessive and doubled quantifiers are not supported");
    }
    return Repeat(std::move(atom), min, max);
  }

  absl::optional<char32_t> ParseHex(size_t digits) {
    if (at_ + digits > pattern_.size()) return absl::nullopt;
    char32_t value = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char c = pattern_[at_ + i];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) return absl::nullopt;
      value = value * 16 + static_cast<char32_t>(digit);
    }
    at_ += digits;
    return value;
  }

  absl::StatusOr<CodePointSet> Character(absl::optional<char32_t> c) const {
    if (!c.has_value() || *c > CodePointSet::kLast ||
        (*c >= 0xD800 && *c <= 0xDFFF)) {
      return Error("an escape that is no character");
    }
    return CodePointSet::Of(*c, *c);
  }

  absl::StatusOr<CodePointSet> ParseUnicodeEscape() {
    if (Consume('{')) {
      const size_t end = pattern_.find('}', at_);
      if (end == absl::string_view::npos || end == at_ || end - at_ > 6) {
        return Error("\\u{...} needs one to six hexadecimal digits");
      }
      const absl::optional<char32_t> c = ParseHex(end - at_);
      Consume('}');
      return Character(c);
    }
    absl::optional<char32_t> c = ParseHex(4);
    if (c.has_value() && *c >= 0xD800 && *c < 0xDC00 && ConsumeText("\\u")) {
      const absl::optional<char32_t> low = ParseHex(4);
      if (!low.has_value() || *low < 0xDC00 || *low > 0xDFFF) {
        return Error("half a surrogate pair");
      }
      c = 0x10000 + ((*c - 0xD800) << 10) + (*low - 0xDC00);
    }
    return Character(c);
  }

  // Behind the backslash.
  absl::StatusOr<CodePointSet> ParseEscape(bool in_class) {
    if (AtEnd()) return Error("a \\ at the end");
    const char32_t c = TakeCharacter();
    switch (c) {
      case 'd':
        return Digits();
      case 'D':
        return Digits().Inverted();
      case 'w':
        return WordCharacters();
      case 'W':
        return WordCharacters().Inverted();
      case 's':
        return Spaces();
      case 'S':
        return Spaces().Inverted();
      case 't':
        return CodePointSet::Of('\t', '\t');
      case 'n':
        return CodePointSet::Of('\n', '\n');
      case 'r':
        return CodePointSet::Of('\r', '\r');
      case 'f':
        return CodePointSet::Of('\f', '\f');
      case 'v':
        return CodePointSet::Of('\v', '\v');
      case '0':
        return CodePointSet::Of(0, 0);
      case 'x':
        return Character(ParseHex(2));
      case 'u':
        return ParseUnicodeEscape();
      default:
        break;
    }
    if (in_class && c == 'b') return CodePointSet::Of('\b', '\b');
    const bool letter_or_digit = (c >= '1' && c <= '9') ||
                                 (c >= 'a' && c <= 'z') ||
                                 (c >= 'A' && c <= 'Z');
    if (letter_or_digit) {
      return Error(absl::StrCat("\\", std::string(1, static_cast<char>(c)),
                                " is not supported"));
    }
    return CodePointSet::Of(c, c);
  }

  // Behind the bracket.
  absl::StatusOr<CodePointSet> ParseClass() {
    CodePointSet set;
    const bool inverted = Consume('^');
    bool first = true;
    while (first || Peek() != ']') {
      if (AtEnd()) return Error("a [ without its ]");
      first = false;
      SY_RETURN_IF_ERROR(budget_->Spend(1));
      SY_ASSIGN_OR_RETURN(const CodePointSet low, ParseClassMember());
      const bool is_range = Peek() == '-' && at_ + 1 < pattern_.size() &&
                            pattern_[at_ + 1] != ']';
      if (!is_range) {
        set.Add(low);
        continue;
      }
      ++at_;
      SY_ASSIGN_OR_RETURN(const CodePointSet high, ParseClassMember());
      const absl::optional<char32_t> a = Single(low), b = Single(high);
      if (!a.has_value() || !b.has_value() || *a > *b) {
        return Error("a range that does not go from one character to a later");
      }
      set.Add(*a, *b);
    }
    ++at_;
    return inverted ? set.Inverted() : set;
  }

  absl::StatusOr<CodePointSet> ParseClassMember() {
    if (AtEnd()) return Error("a [ without its ]");
    if (Consume('\\')) return ParseEscape(true);
    const char32_t c = TakeCharacter();
    return CodePointSet::Of(c, c);
  }

  static absl::optional<char32_t> Single(const CodePointSet& set) {
    if (set.ranges().size() != 1 ||
        set.ranges()[0].low != set.ranges()[0].high) {
      return absl::nullopt;
    }
    return set.ranges()[0].low;
  }

  const absl::string_view pattern_;
  const TextForm form_;
  const RegexMatch match_;
  Budget* const budget_;
  size_t at_ = 0;
};

}  // namespace

absl::StatusOr<Expression> ParseRegex(absl::string_view pattern, TextForm form,
                                      RegexMatch match, Budget* budget) {
  return Parser(pattern, form, match, budget).Parse();
}

}  // namespace switchyard::grammar
