// Typed, optional fields of a JSON object from outside.

#ifndef SWITCHYARD_ROUTER_OPENAI_FIELD_READER_H_
#define SWITCHYARD_ROUTER_OPENAI_FIELD_READER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/optional.h"
#include "absl/types/span.h"
#include "base/json.h"

namespace switchyard::router {

// null counts as absent everywhere. The first error is kept and ends the
// reading: later calls give nullopt. Borrows the object.
class FieldReader {
 public:
  // `path` stands before names in errors: "" or "stream_options.".
  explicit FieldReader(const Json& object, std::string path = "")
      : object_(object), path_(std::move(path)) {}

  // Null if the field is absent. Names are literals.
  const Json* Find(const char* name) const;

  absl::optional<bool> Bool(const char* name);
  // Also takes 16.0. Values outside [min, max] are errors.
  absl::optional<int64_t> Int(const char* name, int64_t min, int64_t max);
  absl::optional<double> Number(const char* name, double min, double max);
  absl::optional<std::string> String(const char* name);

  void Fail(absl::string_view name, absl::string_view message);

  // As errors name the field.
  std::string PathOf(absl::string_view name) const {
    return path_ + std::string(name);
  }

  // Fails if the object has a field that nobody has asked for and that is not
  // in `ignored`; the text names the nearest known one.
  void RefuseUnknown(absl::Span<const char* const> ignored);
  const absl::Status& status() const { return status_; }

 private:
  const Json& object_;
  const std::string path_;
  mutable std::vector<const char*> known_;  // asked for; literals
  absl::Status status_;
};

// "a string", "an object", ... for messages.
absl::string_view JsonTypeName(const Json& value);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_FIELD_READER_H_
