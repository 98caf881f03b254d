#include "grammar/ebnf.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "grammar/code_points.h"
#include "grammar/regex.h"
#include "text/utf8.h"

namespace switchyard::grammar {
namespace {

constexpr int kMaxDepth = 100;
constexpr int kMaxCount = 100'000;

bool IsNameCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' ||
         c == '-' || c == '.';
}

class Parser {
 public:
  Parser(absl::string_view text, Grammar* grammar, Budget* budget)
      : text_(text), grammar_(*grammar), budget_(budget) {}

  // The root.
  absl::StatusOr<RuleId> Parse() {
    if (!text::IsValidUtf8(text_)) return Error("not valid UTF-8");
    const RuleId root = RuleOf("root");
    SkipSpace();
    while (at_ < text_.size()) {
      const std::string name = TakeName();
      SkipSpace();
      if (name.empty() || !ConsumeText("::=")) {
        return Error("expected a rule: NAME ::= ...");
      }
      SkipSpace();
      SY_ASSIGN_OR_RETURN(Expression body, ParseAlternatives(0));
      const RuleId rule = RuleOf(name);
      if (!defined_.insert(rule).second) {
        return Error(absl::StrCat("the rule ", name, " is defined twice"));
      }
      grammar_.rules[rule] = std::move(body);
    }
    for (const auto& [name, rule] : rules_) {
      if (!defined_.contains(rule)) {
        return absl::InvalidArgumentError(
            absl::StrCat("the grammar has no rule ", name));
      }
    }
    return root;
  }

 private:
  absl::Status Error(absl::string_view what) const {
    const auto line =
        1 + std::count(text_.begin(),
                       text_.begin() + std::min(at_, text_.size()), '\n');
    return absl::InvalidArgumentError(
        absl::StrCat("line ", line, " of the grammar: ", what));
  }

  RuleId RuleOf(const std::string& name) {
    const auto [it, is_new] = rules_.emplace(name, 0);
    if (is_new) it->second = grammar_.AddRule();
    return it->second;
  }

  void SkipSpace() {
    while (at_ < text_.size()) {
      if (absl::ascii_isspace(static_cast<unsigned char>(text_[at_]))) {
        ++at_;
      } else if (text_[at_] == '#') {
        at_ = std::min(text_.find('\n', at_), text_.size());
      } else {
        return;
      }
    }
  }
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool Consume(char c) {
    if (Peek() != c || at_ == text_.size()) return false;
    ++at_;
    return true;
  }
  bool ConsumeText(absl::string_view what) {
    if (text_.substr(at_, what.size()) != what) return false;
    at_ += what.size();
    return true;
  }
  std::string TakeName() {
    const size_t begin = at_;
    while (at_ < text_.size() && IsNameCharacter(text_[at_])) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }
  // A name that begins the next rule does not belong to this one.
  bool AtNextRule() {
    const size_t begin = at_;
    const bool named = !TakeName().empty();
    SkipSpace();
    const bool next = named && text_.substr(at_, 3) == "::=";
    at_ = begin;
    return next;
  }

  absl::StatusOr<Expression> ParseAlternatives(int depth) {
    if (depth > kMaxDepth) return Error("groups are nested too deeply");
    std::vector<Expression> options;
    do {
      SkipSpace();
      std::vector<Expression> parts;
      while (at_ < text_.size() && Peek() != '|' && Peek() != ')' &&
             !AtNextRule()) {
        SY_RETURN_IF_ERROR(budget_->Spend(1));
        SY_ASSIGN_OR_RETURN(Expression part, ParsePart(depth));
        parts.push_back(std::move(part));
        SkipSpace();
      }
      options.push_back(Sequence(std::move(parts)));
    } while (Consume('|'));
    return Choice(std::move(options));
  }

  absl::StatusOr<Expression> ParsePart(int depth) {
    Expression part;
    if (Consume('(')) {
      SY_ASSIGN_OR_RETURN(part, ParseAlternatives(depth + 1));
      if (!Consume(')')) return Error("a ( without its )");
    } else if (Peek() == '"' || Peek() == '[') {
      SY_ASSIGN_OR_RETURN(part, ParseTerminal());
    } else if (Consume('.')) {
      part = OneOf(CodePointSet::All(), TextForm::kRaw);
    } else {
      const std::string name = TakeName();
      if (name.empty()) {
        return Error(absl::StrCat("unexpected character '",
                                  std::string(1, Peek()), "'"));
      }
      part = Rule(RuleOf(name));
    }
    return ParseQuantifiers(std::move(part));
  }

  // "..." and [...] have the escapes of regular expressions.
  absl::StatusOr<Expression> ParseTerminal() {
    const char close = Peek() == '"' ? '"' : ']';
    const size_t begin = at_++;
    while (at_ < text_.size() && text_[at_] != close && text_[at_] != '\n') {
      at_ += text_[at_] == '\\' ? 2 : 1;
    }
    if (at_ >= text_.size() || text_[at_] != close) {
      return Error(close == '"' ? "a \" without its end" : "a [ without its ]");
    }
    ++at_;
    std::string pattern;
    absl::string_view inside = text_.substr(begin, at_ - begin);
    if (close == '"') {
      inside = inside.substr(1, inside.size() - 2);
      for (size_t i = 0; i < inside.size(); ++i) {
        if (inside[i] == '\\' && i + 1 < inside.size()) {
          pattern += inside[i++];
        } else if (!absl::ascii_isalnum(
                       static_cast<unsigned char>(inside[i])) &&
                   static_cast<unsigned char>(inside[i]) < 0x80) {
          pattern += '\\';
        }
        pattern += inside[i];
      }
    } else {
      pattern = std::string(inside);
    }
    absl::StatusOr<Expression> parsed =
        ParseRegex(pattern, TextForm::kRaw, RegexMatch::kWhole, budget_);
    return parsed.ok()
               ? parsed
               : absl::StatusOr<Expression>(Error(parsed.status().message()));
  }

  int ParseCount() {
    int count = -1;
    while (Peek() >= '0' && Peek() <= '9') {
      count = std::min(std::max(count, 0) * 10 + (Peek() - '0'), kMaxCount);
      ++at_;
    }
    return count;
  }

  absl::StatusOr<Expression> ParseQuantifiers(Expression part) {
    for (int count = 0; count < kMaxDepth; ++count) {
      SkipSpace();
      if (Consume('*')) {
        part = Repeat(std::move(part), 0, -1);
      } else if (Consume('+')) {
        part = Repeat(std::move(part), 1, -1);
      } else if (Consume('?')) {
        part = Repeat(std::move(part), 0, 1);
      } else if (Consume('{')) {
        const int min = ParseCount();
        const bool range = Consume(',');
        const int max = range ? ParseCount() : min;
        if ((min < 0 && max < 0) || (max >= 0 && max < min) || !Consume('}')) {
          return Error("a count is {m}, {m,} or {m,n} with n not below m");
        }
        part = Repeat(std::move(part), std::max(min, 0), max);
      } else {
        return part;
      }
    }
    return Error("too many quantifiers behind one another");
  }

  const absl::string_view text_;
  Grammar& grammar_;
  Budget* const budget_;
  absl::flat_hash_set<RuleId> defined_;
  absl::flat_hash_map<std::string, RuleId> rules_;
  size_t at_ = 0;
};

}  // namespace

absl::StatusOr<Grammar> ParseEbnf(absl::string_view text, Budget* budget) {
  Grammar grammar;
  SY_ASSIGN_OR_RETURN(grammar.root, AddEbnf(text, &grammar, budget));
  return grammar;
}

absl::StatusOr<RuleId> AddEbnf(absl::string_view text, Grammar* grammar,
                               Budget* budget) {
  return Parser(text, grammar, budget).Parse();
}

}  // namespace switchyard::grammar
