// Early return for absl::Status and absl::StatusOr.
// Delete this file when the oldest supported Abseil brings status_macros.h.

#ifndef SWITCHYARD_BASE_STATUS_MACROS_H_
#define SWITCHYARD_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// Returns from the current function when `expression` is not OK.
#define SY_RETURN_IF_ERROR(expression)                              \
  do {                                                              \
    if (::absl::Status sy_status = (expression); !sy_status.ok()) { \
      return sy_status;                                             \
    }                                                               \
  } while (false)

#define SY_STATUS_CONCAT_INNER(a, b) a##b
#define SY_STATUS_CONCAT(a, b) SY_STATUS_CONCAT_INNER(a, b)

// SY_ASSIGN_OR_RETURN(auto value, Function()): declares or assigns `value`, or
// returns the status.
#define SY_ASSIGN_OR_RETURN(declaration, expression)                  \
  SY_ASSIGN_OR_RETURN_INNER(SY_STATUS_CONCAT(sy_statusor_, __LINE__), \
                            declaration, expression)
#define SY_ASSIGN_OR_RETURN_INNER(name, declaration, expression) \
  auto name = (expression);                                      \
  if (!name.ok()) return std::move(name).status();               \
  declaration = *std::move(name)

#endif  // SWITCHYARD_BASE_STATUS_MACROS_H_
