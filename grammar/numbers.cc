#include "grammar/numbers.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "grammar/dfa.h"

namespace switchyard::grammar {
namespace {

Expression Digit() { return Byte('0', '9'); }
Expression Digits(int min, int max) { return Repeat(Digit(), min, max); }

Expression DigitsBetween(char low, char high) {
  return low > high
             ? Nothing()
             : Byte(static_cast<uint8_t>(low), static_cast<uint8_t>(high));
}

// 0, or digits that do not begin with one.
Expression AnyMagnitude() {
  return Choice({Literal("0"),
                 Sequence({Byte('1', '9'), Digits(0, kMaxIntegerDigits - 1)})});
}

// A fraction's point and digits, or nothing.
Expression AnyFraction(int digits) {
  if (digits == 0) return Empty();
  return Optional(Sequence({Literal("."), Digits(1, digits)}));
}

// Whole numbers without sign above (or below) `bound`.
Expression IntegerBeyond(const std::string& bound, bool above) {
  std::vector<Expression> options;
  const int size = static_cast<int>(bound.size());
  for (int i = 0; i < size; ++i) {
    const char first = i == 0 && size > 1 ? '1' : '0';
    const char digit = bound[i];
    options.push_back(
        Sequence({Literal(bound.substr(0, i)),
                  above ? DigitsBetween(static_cast<char>(digit + 1), '9')
                        : DigitsBetween(first, static_cast<char>(digit - 1)),
                  Digits(size - i - 1, size - i - 1)}));
  }
  if (above && size < kMaxIntegerDigits) {
    options.push_back(
        Sequence({Byte('1', '9'), Digits(size, kMaxIntegerDigits - 1)}));
  }
  if (!above && size > 1) {
    options.push_back(Literal("0"));
    options.push_back(Sequence({Byte('1', '9'), Digits(0, size - 2)}));
  }
  return Choice(std::move(options));
}

// Fractions (with their point, or nothing for none) beyond `bound`, or equal
// to it if `equal`. `digits`: at most so many.
Expression FractionBeyond(const std::string& bound, bool above, bool equal,
                          int digits) {
  std::vector<Expression> options;
  const int size = static_cast<int>(bound.size());
  const auto with_point = [&](Expression rest) {
    options.push_back(Sequence({Literal("."), std::move(rest)}));
  };
  for (int i = 0; i < size && i < digits; ++i) {
    const char digit = bound[i];
    with_point(
        Sequence({Literal(bound.substr(0, i)),
                  above ? DigitsBetween(static_cast<char>(digit + 1), '9')
                        : DigitsBetween('0', static_cast<char>(digit - 1)),
                  Digits(0, digits - i - 1)}));
    // A beginning of the bound is below it, for the bound's last digit is not
    // 0.
    if (!above && i > 0) with_point(Literal(bound.substr(0, i)));
  }
  if (!above && size > 0) options.push_back(Empty());
  if (size > digits) {
    if (!above && digits > 0) with_point(Literal(bound.substr(0, digits)));
    return Choice(std::move(options));
  }
  const int left = digits - size;
  if (above) {
    // More digits, not all of them 0.
    for (int zeros = 0; zeros < left; ++zeros) {
      with_point(Sequence({Literal(bound), Literal(std::string(zeros, '0')),
                           Byte('1', '9'), Digits(0, left - zeros - 1)}));
    }
  }
  if (equal) {
    const Expression zeros = Repeat(Literal("0"), size == 0 ? 1 : 0,
                                    std::max(left, size == 0 ? 1 : 0));
    if (size == 0) options.push_back(Empty());
    if (digits > 0) with_point(Sequence({Literal(bound), zeros}));
  }
  return Choice(std::move(options));
}

// Numbers without sign beyond `bound`, whose sign does not count.
Expression MagnitudeBeyond(const Decimal& bound, bool above, bool equal,
                           int fraction_digits) {
  return Choice({Sequence({IntegerBeyond(bound.integer, above),
                           AnyFraction(fraction_digits)}),
                 Sequence({Literal(bound.integer),
                           FractionBeyond(bound.fraction, above, equal,
                                          fraction_digits)})});
}

struct Side {
  Decimal bound;
  bool equal = true;
};

// low <= x <= high, as texts without sign.
absl::StatusOr<Expression> Magnitudes(const Side& low,
                                      const absl::optional<Side>& high,
                                      int fraction_digits, Budget* budget) {
  const Expression above =
      MagnitudeBeyond(low.bound, true, low.equal, fraction_digits);
  if (!high.has_value()) return above;
  SY_ASSIGN_OR_RETURN(const Dfa a, BuildDfa(above, budget));
  SY_ASSIGN_OR_RETURN(const Dfa b,
                      BuildDfa(MagnitudeBeyond(high->bound, false, high->equal,
                                               fraction_digits),
                               budget));
  SY_ASSIGN_OR_RETURN(Dfa both, Combine(a, b, Combination::kBoth, budget));
  return Automaton(std::make_shared<const Dfa>(std::move(both)));
}

absl::StatusOr<Expression> Bounded(const NumberBounds& bounds,
                                   int fraction_digits, Budget* budget) {
  const Decimal zero;
  std::vector<Expression> options;
  const auto side = [](const Decimal& bound, bool exclusive) {
    return Side{bound, !exclusive};
  };
  const bool min_below_zero = !bounds.min.has_value() || bounds.min->negative;
  const bool max_below_zero = bounds.max.has_value() && bounds.max->negative;
  if (!max_below_zero) {
    const Side low = min_below_zero ? Side{zero, true}
                                    : side(*bounds.min, bounds.exclusive_min);
    absl::optional<Side> high;
    if (bounds.max.has_value()) {
      high = side(*bounds.max, bounds.exclusive_max);
    }
    SY_ASSIGN_OR_RETURN(Expression positive,
                        Magnitudes(low, high, fraction_digits, budget));
    options.push_back(std::move(positive));
  }
  if (min_below_zero) {
    const Side low = max_below_zero ? side(*bounds.max, bounds.exclusive_max)
                                    : Side{zero, false};
    absl::optional<Side> high;
    if (bounds.min.has_value()) {
      high = side(*bounds.min, bounds.exclusive_min);
    }
    SY_ASSIGN_OR_RETURN(Expression negative,
                        Magnitudes(low, high, fraction_digits, budget));
    options.push_back(Sequence({Literal("-"), std::move(negative)}));
  }
  return Choice(std::move(options));
}

// Digits, with a sign or none, of multiples of `divisor`.
Dfa MultiplesOf(int divisor) {
  Dfa dfa;
  // 0: nothing yet, 1: a sign; behind them the remainders.
  dfa.states.resize(static_cast<size_t>(divisor) + 2);
  dfa.states[0].edges.push_back({'-', '-', 1});
  for (int from = 0; from < divisor + 2; ++from) {
    const int remainder = std::max(from - 2, 0);
    for (int digit = 0; digit < 10; ++digit) {
      const uint8_t byte = static_cast<uint8_t>('0' + digit);
      dfa.states[from].edges.push_back(
          {byte, byte, (remainder * 10 + digit) % divisor + 2});
    }
  }
  dfa.states[2].accepting = true;
  return dfa;
}

}  // namespace

absl::StatusOr<Decimal> Decimal::FromJson(const Json& number) {
  const std::string text = number.is_number() ? DumpJson(number) : "";
  Decimal out;
  absl::string_view rest = text;
  const bool negative = !rest.empty() && rest[0] == '-';
  if (negative) rest.remove_prefix(1);
  std::string digits;
  int point = -1, exponent = 0;
  for (size_t i = 0; i < rest.size(); ++i) {
    if (absl::ascii_isdigit(static_cast<unsigned char>(rest[i]))) {
      digits += rest[i];
    } else if (rest[i] == '.') {
      point = static_cast<int>(digits.size());
    } else if (!absl::SimpleAtoi(rest.substr(i + 1), &exponent)) {
      digits.clear();
      break;
    } else {
      break;
    }
  }
  if (point < 0) point = static_cast<int>(digits.size());
  point += exponent;
  if (digits.empty() || std::abs(exponent) > 2 * kMaxIntegerDigits) {
    return absl::InvalidArgumentError(absl::StrCat(
        "must be a number of ordinary size, not ", DumpJson(number)));
  }
  if (point < 0) {
    digits =
        absl::StrCat(std::string(static_cast<size_t>(-point), '0'), digits);
  }
  point = std::max(point, 0);
  if (point > static_cast<int>(digits.size())) {
    digits.append(static_cast<size_t>(point) - digits.size(), '0');
  }
  out.integer = digits.substr(0, static_cast<size_t>(point));
  out.fraction = digits.substr(static_cast<size_t>(point));
  out.integer.erase(
      0, std::min(out.integer.find_first_not_of('0'), out.integer.size()));
  if (out.integer.empty()) out.integer.push_back('0');
  while (!out.fraction.empty() && out.fraction.back() == '0') {
    out.fraction.pop_back();
  }
  out.negative = negative && !out.is_zero();
  if (static_cast<int>(out.integer.size()) > kMaxIntegerDigits) {
    return absl::InvalidArgumentError(
        absl::StrCat(text, " has more than ", kMaxIntegerDigits, " digits"));
  }
  return out;
}

int Decimal::Compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  const int sign = a.negative ? -1 : 1;
  if (a.integer.size() != b.integer.size()) {
    return a.integer.size() < b.integer.size() ? -sign : sign;
  }
  const int integers = a.integer.compare(b.integer);
  if (integers != 0) return integers < 0 ? -sign : sign;
  const int fractions = a.fraction.compare(b.fraction);
  return fractions == 0 ? 0 : fractions < 0 ? -sign : sign;
}

absl::StatusOr<Expression> Integers(const NumberBounds& bounds, int multiple,
                                    Budget* budget) {
  Expression integers;
  if (bounds.min.has_value() || bounds.max.has_value()) {
    SY_ASSIGN_OR_RETURN(integers, Bounded(bounds, 0, budget));
  } else {
    integers = Sequence({Optional(Literal("-")), AnyMagnitude()});
  }
  if (multiple == 1) return integers;
  SY_ASSIGN_OR_RETURN(const Dfa all, BuildDfa(integers, budget));
  SY_ASSIGN_OR_RETURN(Dfa some, Combine(all, MultiplesOf(multiple),
                                        Combination::kBoth, budget));
  return Automaton(std::make_shared<const Dfa>(std::move(some)));
}

absl::StatusOr<Expression> Numbers(const NumberBounds& bounds,
                                   int fraction_digits, Budget* budget) {
  const int digits = fraction_digits < 0
                         ? kMaxFractionDigits
                         : std::min(fraction_digits, kMaxFractionDigits);
  if (bounds.min.has_value() || bounds.max.has_value()) {
    return Bounded(bounds, digits, budget);
  }
  const Expression exponent = Optional(
      Sequence({Choice({Literal("e"), Literal("E")}),
                Optional(Choice({Literal("+"), Literal("-")})), Digits(1, 2)}));
  return Sequence({Optional(Literal("-")), AnyMagnitude(), AnyFraction(digits),
                   fraction_digits < 0 ? exponent : Empty()});
}

}  // namespace switchyard::grammar
