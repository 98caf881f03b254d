// What a command says when its output goes nowhere: a full disk, a reader that
// hung up.

#ifndef SWITCHYARD_SWITCHYARD_OUTPUT_ERROR_H_
#define SWITCHYARD_SWITCHYARD_OUTPUT_ERROR_H_

#include <cerrno>
#include <ostream>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace switchyard {

// Calls `write(out)`. DATA_LOSS with the system's reason, where it gave one, if
// `out` is in an error state afterwards.
template <typename Write>
absl::Status WriteOutput(std::ostream& out, Write write) {
  errno = 0;  // streams keep only the fact, not the reason
  write(out);
  const int error = errno;
  if (out) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "the output cannot be written",
      error == 0 ? ""
                 : absl::StrCat(": ", std::generic_category().message(error))));
}

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_OUTPUT_ERROR_H_
