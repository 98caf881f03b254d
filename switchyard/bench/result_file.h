// The file that --json names.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_RESULT_FILE_H_
#define SWITCHYARD_SWITCHYARD_BENCH_RESULT_FILE_H_

#include <string>

#include "absl/status/status.h"

namespace switchyard::bench {

// Writes the file whole or not at all. Errors name it, --json and the system's
// reason.
absl::Status WriteResultFile(const std::string& path, const std::string& text);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_RESULT_FILE_H_
