// Typed values out of one JSON object, with errors that name the key.
//
// Reading goes on after an error and the first one is kept, so that a parser is
// a plain list of its fields with one check at the end.

#ifndef SWITCHYARD_MODEL_JSON_FIELDS_H_
#define SWITCHYARD_MODEL_JSON_FIELDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/json.h"

namespace switchyard::model {

// Every Read leaves *value alone when the key is absent or null (then it must
// hold the default), and after an error. Errors are INVALID_ARGUMENT.
class JsonFields {
 public:
  // `object` must be a JSON object and outlive this. `where` comes before every
  // key in messages: "", or "rope_scaling.".
  JsonFields(const Json& object, std::string where);

  // Present and not null.
  bool Has(absl::string_view key) const { return Find(key) != nullptr; }
  // The value, or null if absent or JSON's null.
  const Json* Find(absl::string_view key) const;

  // A JSON integer in [min, max].
  void ReadInt(absl::string_view key, int64_t min, int64_t max, int64_t* value);
  void ReadInt(absl::string_view key, int64_t min, int64_t max, int* value);
  // An integer or a list of integers, each in [min, max].
  void ReadIntOrList(absl::string_view key, int64_t min, int64_t max,
                     std::vector<int64_t>* value);
  // A JSON number in [min, max].
  void ReadDouble(absl::string_view key, double min, double max, double* value);
  void ReadBool(absl::string_view key, bool* value);
  void ReadString(absl::string_view key, std::string* value);

  // Keeps the first error, of this key.
  void Fail(absl::string_view key, absl::string_view what);
  // The first error, or OK.
  const absl::Status& status() const { return status_; }

 private:
  const Json& object_;
  const std::string where_;
  absl::Status status_;
};

// At most 80 characters of a value, for messages.
std::string DescribeJson(const Json& value);

}  // namespace switchyard::model

#endif  // SWITCHYARD_MODEL_JSON_FIELDS_H_
