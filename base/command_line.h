// Command lines of all binaries, over Abseil's flags.

#ifndef SWITCHYARD_BASE_COMMAND_LINE_H_
#define SWITCHYARD_BASE_COMMAND_LINE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace switchyard {

// Parses argv[1...] into the process's ABSL_FLAGs. --served-model-name and
// --served_model_name are the same flag. A flag that is not on the command line
// takes its value from the environment variable SWITCHYARD_ + its name in upper
// case, or else from the JSON object in the file of --config=FILE (its name,
// any spelling). Other servers' names of flags are understood
// (flag_aliases.h), and a number without a unit is a duration's seconds.
// Returns the positional arguments, without argv[0]. INVALID_ARGUMENT: an
// unknown flag (the text names the nearest, or what to do instead), a bad
// value. --help and --version print and exit(0).
absl::StatusOr<std::vector<std::string>> ParseCommandLine(
    int argc, char** argv, absl::string_view usage);

// What a program does, if it does several things: named by the first positional
// arguments.
struct CommandFlags {
  std::string name;  // words, separated by spaces
  std::string usage;
  std::vector<std::string> flags;  // that it takes; names with underscores
};
// The same for such a program. --help behind a command shows that one's usage
// and flags; without one, `usage`. INVALID_ARGUMENT also: a flag on the command
// line that the command does not take. The environment and config files may
// have flags of other commands. REQUIRES: all flags exist.
absl::StatusOr<std::vector<std::string>> ParseCommandLine(
    int argc, char** argv, absl::string_view usage,
    absl::Span<const CommandFlags> commands);

// The candidate with the least edit distance to `name`, or "" if none is near
// (more than half of the letters differ).
std::string NearestName(absl::string_view name,
                        absl::Span<const std::string> candidates);

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_COMMAND_LINE_H_
