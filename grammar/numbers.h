// JSON numbers within bounds, exactly: on digits, not on doubles.

#ifndef SWITCHYARD_GRAMMAR_NUMBERS_H_
#define SWITCHYARD_GRAMMAR_NUMBERS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "base/json.h"
#include "grammar/budget.h"
#include "grammar/expression.h"

namespace switchyard::grammar {

// Digits before and behind the point that are written at most: what readers
// can hold, and an end for a model that would go on and on.
inline constexpr int kMaxIntegerDigits = 18;
inline constexpr int kMaxFractionDigits = 17;

// A decimal fraction. A value.
struct Decimal {
  bool negative = false;      // not of zero
  std::string integer = "0";  // no leading zeros
  std::string fraction;       // no trailing zeros

  // INVALID_ARGUMENT: no number, or one with too many digits.
  static absl::StatusOr<Decimal> FromJson(const Json& number);
  bool is_zero() const { return integer == "0" && fraction.empty(); }
  // < 0, 0, > 0 as a is less than, equal to or greater than b.
  static int Compare(const Decimal& a, const Decimal& b);
};

struct NumberBounds {
  absl::optional<Decimal> min, max;
  bool exclusive_min = false, exclusive_max = false;
};

// Without bounds numbers may have a fraction and an exponent (of two digits: no
// reader overflows), with bounds a fraction. `multiple` (of integers): 1 to
// 1000.
absl::StatusOr<Expression> Integers(const NumberBounds& bounds, int multiple,
                                    Budget* budget);
// `fraction_digits`: at most so many; < 0: as many as there may be.
absl::StatusOr<Expression> Numbers(const NumberBounds& bounds,
                                   int fraction_digits, Budget* budget);

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_NUMBERS_H_
