// Characters as bytes of UTF-8, as they are or as a JSON string spells them.

#ifndef SWITCHYARD_GRAMMAR_CODE_POINTS_H_
#define SWITCHYARD_GRAMMAR_CODE_POINTS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "grammar/expression.h"

namespace switchyard::grammar {

// A set of Unicode scalar values. A value.
class CodePointSet {
 public:
  static constexpr char32_t kLast = 0x10FFFF;

  CodePointSet() = default;
  static CodePointSet All() { return CodePointSet().Inverted(); }
  static CodePointSet Of(char32_t low, char32_t high) {
    CodePointSet set;
    set.Add(low, high);
    return set;
  }

  // Surrogates in between are left out. REQUIRES: low <= high <= kLast.
  void Add(char32_t low, char32_t high);
  void Add(const CodePointSet& other);
  CodePointSet Inverted() const;

  struct Range {
    char32_t low = 0, high = 0;
  };
  // Disjoint, ascending, without surrogates.
  const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

enum class TextForm {
  kRaw,
  // Within quotes, each character in one way only: as itself where JSON allows
  // that, else by its short escape, else as \u00xx with small letters.
  kJsonString,
};

// Any one character of the set.
Expression OneOf(const CodePointSet& set, TextForm form);

// Valid UTF-8, to be written in this form.
Expression Text(absl::string_view utf8, TextForm form);

// One character of a JSON string in any spelling. \u escapes of half a
// surrogate pair stand for no character and are not allowed.
Expression AnyJsonCharacter();

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_CODE_POINTS_H_
