// What users of other servers type: names for flags that programs here have,
// and flags that have no place here, with what to do instead.
//
// Above: command_line.h.

#ifndef SWITCHYARD_BASE_FLAG_ALIASES_H_
#define SWITCHYARD_BASE_FLAG_ALIASES_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace switchyard {

// Names with underscores.
struct FlagAlias {
  const char* name;      // SGLang's, vLLM's or llama.cpp's
  const char* flag;      // ours, of one program at least
  bool negated = false;  // a boolean that means the opposite
};
absl::Span<const FlagAlias> FlagAliases();

// What who gives the flag `name` to a program without it should do; "": nothing
// is known of such a flag.
absl::string_view InsteadOfFlag(absl::string_view name);

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_FLAG_ALIASES_H_
