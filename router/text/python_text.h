// What Python prints and strips, for templates that were written for it.

#ifndef SWITCHYARD_ROUTER_TEXT_PYTHON_TEXT_H_
#define SWITCHYARD_ROUTER_TEXT_PYTHON_TEXT_H_

#include <string>

#include "absl/strings/string_view.h"
#include "base/json.h"

namespace switchyard::router {

// str(value): strings raw, None, True, ['a', 1], {'k': 2.0}.
std::string PythonStr(const Json& value);

// bool(value).
bool PythonTruth(const Json& value);

// text.strip(): Unicode's white space and U+001C to U+001F. `text` is UTF-8.
absl::string_view PythonStrip(absl::string_view text);
absl::string_view PythonRightStrip(absl::string_view text);

// text.lstrip("\n"), text.rstrip("\n"), text.strip("\n").
absl::string_view StripLeadingNewlines(absl::string_view text);
absl::string_view StripTrailingNewlines(absl::string_view text);
absl::string_view StripNewlines(absl::string_view text);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_TEXT_PYTHON_TEXT_H_
