// JSON from outside: bounded, duplicate-safe, and exact about numbers and
// order.

#ifndef SWITCHYARD_BASE_JSON_H_
#define SWITCHYARD_BASE_JSON_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace switchyard {

// Objects keep the order of their keys. Integers outside int64/uint64 are kept
// as `binary` values that hold the digits (JSON text itself never gives a
// binary value), so that they print exactly as they came.
using Json = nlohmann::ordered_json;

struct JsonLimits {
  int64_t max_bytes = 64 << 20;
  int max_depth = 128;  // of nested arrays and objects
};

// INVALID_ARGUMENT with the offset (from 0) and what is wrong: not JSON,
// invalid UTF-8, too deep, too long. Of a repeated key the last value counts,
// in the first one's place (as Python's json does). Never throws. "NaN" and
// "Infinity" are refused, and so is a number beyond the range of double.
absl::StatusOr<Json> ParseJson(absl::string_view text, JsonLimits limits = {});

// As Python's json.dumps(ensure_ascii=False): ", " and ": " separators, other
// characters raw, control characters as \n, \t or \u00XX; floats in shortest
// round-trip form with ".0" when integral.
std::string DumpJsonLikePython(const Json& value);

// Compact, without spaces; invalid UTF-8 is replaced. Never throws.
std::string DumpJson(const Json& value);

}  // namespace switchyard

#endif  // SWITCHYARD_BASE_JSON_H_
