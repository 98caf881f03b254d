// --log_level and --log_format, the same for every program.

#ifndef SWITCHYARD_BASE_LOG_FLAGS_H_
#define SWITCHYARD_BASE_LOG_FLAGS_H_

#include "absl/status/status.h"

namespace switchyard {

// Sets up the log as the flags say; for mains, once the command line is parsed.
// INVALID_ARGUMENT: no such level or format; the text has those that are.
absl::Status SetLogOfFlags();

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_LOG_FLAGS_H_
