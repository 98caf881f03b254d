#include "router/openai/field_reader.h"

#include <cmath>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "base/command_line.h"
#include "router/openai/errors.h"

namespace switchyard::router {

absl::string_view JsonTypeName(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "a boolean";
    default:
      return "a number";
  }
}

const Json* FieldReader::Find(const char* name) const {
  known_.push_back(name);
  if (!status_.ok()) return nullptr;
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void FieldReader::Fail(absl::string_view name, absl::string_view message) {
  if (status_.ok()) status_ = ParamError(absl::StrCat(path_, name), message);
}

void FieldReader::RefuseUnknown(absl::Span<const char* const> ignored) {
  std::vector<std::string> known(known_.begin(), known_.end());
  known.insert(known.end(), ignored.begin(), ignored.end());
  for (const auto& [key, value] : object_.items()) {
    if (absl::c_linear_search(known, key)) continue;
    const std::string nearest = NearestName(key, known);
    Fail(key, nearest.empty()
                  ? "is not a field of this API"
                  : absl::StrCat("is not a field of this API; did you mean ",
                                 nearest, "?"));
    return;
  }
}

absl::optional<bool> FieldReader::Bool(const char* name) {
  const Json* value = Find(name);
  if (value == nullptr) return absl::nullopt;
  if (!value->is_boolean()) {
    Fail(name,
         absl::StrCat("must be true or false, not ", JsonTypeName(*value)));
    return absl::nullopt;
  }
  return value->get<bool>();
}

absl::optional<int64_t> FieldReader::Int(const char* name, int64_t min,
                                         int64_t max) {
  const Json* value = Find(name);
  if (value == nullptr) return absl::nullopt;
  const auto out_of_range = [&]() -> absl::optional<int64_t> {
    Fail(name, absl::StrCat("must be in [", min, ", ", max, "], not ",
                            DumpJson(*value)));
    return absl::nullopt;
  };
  int64_t number = 0;
  if (value->is_number_unsigned()) {
    const uint64_t big = value->get<uint64_t>();
    if (big > static_cast<uint64_t>(INT64_MAX)) return out_of_range();
    number = static_cast<int64_t>(big);
  } else if (value->is_number_integer()) {
    number = value->get<int64_t>();
  } else if (value->is_number_float()) {
    const double real = value->get<double>();
    if (real != std::floor(real)) {
      Fail(name, absl::StrCat("must be an integer, not ", DumpJson(*value)));
      return absl::nullopt;
    }
    // Beyond 2^53 a double no longer counts in ones.
    if (!(std::fabs(real) <= 9007199254740992.0)) return out_of_range();
    number = static_cast<int64_t>(real);
  } else if (value->is_binary()) {  // an integer beyond 64 bits (base/json.h)
    Fail(name, absl::StrCat("must be in [", min, ", ", max, "]"));
    return absl::nullopt;
  } else {
    Fail(name, absl::StrCat("must be an integer, not ", JsonTypeName(*value)));
    return absl::nullopt;
  }
  if (number < min || number > max) return out_of_range();
  return number;
}

absl::optional<double> FieldReader::Number(const char* name, double min,
                                           double max) {
  const Json* value = Find(name);
  if (value == nullptr) return absl::nullopt;
  if (!value->is_number()) {
    Fail(name, absl::StrCat("must be a number, not ", JsonTypeName(*value)));
    return absl::nullopt;
  }
  const double number = value->get<double>();
  if (!(number >= min && number <= max)) {
    Fail(name, absl::StrCat("must be in [", min, ", ", max, "], not ",
                            DumpJson(*value)));
    return absl::nullopt;
  }
  return number;
}

absl::optional<std::string> FieldReader::String(const char* name) {
  const Json* value = Find(name);
  if (value == nullptr) return absl::nullopt;
  if (!value->is_string()) {
    Fail(name, absl::StrCat("must be a string, not ", JsonTypeName(*value)));
    return absl::nullopt;
  }
  return value->get<std::string>();
}

}  // namespace switchyard::router
