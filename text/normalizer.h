// Unicode normalisation form C, in time near linear for any text.

#ifndef SWITCHYARD_TEXT_NORMALIZER_H_
#define SWITCHYARD_TEXT_NORMALIZER_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace switchyard::text {

// `text` is valid UTF-8. Adds to `*steps` the work done (characters looked at
// and comparisons made while reordering marks); may be null.
std::string NormalizeNfc(absl::string_view text, int64_t* steps);

}  // namespace switchyard::text

#endif  // SWITCHYARD_TEXT_NORMALIZER_H_
