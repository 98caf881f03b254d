// What a kept state is found by, in memory, on disk and on its way to another
// worker.

#ifndef SWITCHYARD_ATTENTION_WORKER_STATE_PREFIX_H_
#define SWITCHYARD_ATTENTION_WORKER_STATE_PREFIX_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace switchyard::attention_worker {

// Of a scope's name, bytes.
inline constexpr size_t kMaxScopeBytes = 64;

// The first tokens of a sequence, and among whom they are shared: prefixes of
// different scopes have nothing to do with one another, whatever their tokens.
// Borrows both.
struct Prefix {
  absl::string_view scope;  // "": of everybody who names none
  absl::Span<const int32_t> tokens;

  Prefix first(int64_t n) const {
    return {scope, tokens.first(static_cast<size_t>(n))};
  }
  int64_t size() const { return static_cast<int64_t>(tokens.size()); }
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_STATE_PREFIX_H_
