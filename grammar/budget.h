// What a compilation may cost. Grammars come from clients: what a few bytes of
// text can ask for has no bound of its own.

#ifndef SWITCHYARD_GRAMMAR_BUDGET_H_
#define SWITCHYARD_GRAMMAR_BUDGET_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace switchyard::grammar {

// Counts pieces of work and of memory alike: states, edges, expressions. The
// same text is refused on every machine. Not thread-safe.
class Budget {
 public:
  // About a second, and a few hundred megabytes at worst.
  static constexpr int64_t kDefault = 8'000'000;

  explicit Budget(int64_t total = kDefault) : total_(total), left_(total) {}

  // INVALID_ARGUMENT once everything is spent.
  absl::Status Spend(int64_t amount) {
    left_ -= amount;
    if (left_ >= 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "the grammar is too large to be compiled: more than ", total_,
        " steps; give fewer alternatives or smaller repetition counts"));
  }

 private:
  const int64_t total_;
  int64_t left_;
};

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_BUDGET_H_
