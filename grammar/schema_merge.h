// Two JSON schemas -> one that says what both say.

#ifndef SWITCHYARD_GRAMMAR_SCHEMA_MERGE_H_
#define SWITCHYARD_GRAMMAR_SCHEMA_MERGE_H_

#include <string>

#include "absl/status/statusor.h"
#include "base/json.h"

namespace switchyard::grammar {

// Of several patterns, an array of texts: a name that no JSON Schema has.
inline constexpr char kPatterns[] = "$patterns";

// Neither has $ref or allOf at its top. Below, allOf is left for later.
// INVALID_ARGUMENT names what cannot be joined.
absl::StatusOr<Json> MergeSchemas(const Json& a, const Json& b,
                                  const std::string& path);

}  // namespace switchyard::grammar

#endif  // SWITCHYARD_GRAMMAR_SCHEMA_MERGE_H_
