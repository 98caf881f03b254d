#include "model/json_fields.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace switchyard::model {
namespace {

// False for anything but a JSON integer that fits int64_t.
bool GetInt64(const Json& value, int64_t* out) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return false;
    }
    *out = static_cast<int64_t>(number);
    return true;
  }
  if (value.is_number_integer()) {
    *out = value.get<int64_t>();
    return true;
  }
  return false;
}

}  // namespace

std::string DescribeJson(const Json& value) {
  constexpr size_t kMaxBytes = 80;
  // ParseJson keeps integers beyond 64 bits as their digits.
  if (value.is_binary()) return "an integer beyond 64 bits";
  std::string text = DumpJson(value);
  if (text.size() <= kMaxBytes) return text;
  // Cut before a character, not inside one: 10xxxxxx is a UTF-8 continuation.
  size_t end = kMaxBytes;
  while (end > 0 && (static_cast<uint8_t>(text[end]) & 0xC0) == 0x80) --end;
  text.resize(end);
  return absl::StrCat(text, "...");
}

JsonFields::JsonFields(const Json& object, std::string where)
    : object_(object), where_(std::move(where)) {
  SY_CHECK(object.is_object());
}

const Json* JsonFields::Find(absl::string_view key) const {
  const auto it = object_.find(std::string(key));
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void JsonFields::Fail(absl::string_view key, absl::string_view what) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(where_, key, " ", what));
}

void JsonFields::ReadInt(absl::string_view key, int64_t min, int64_t max,
                         int64_t* value) {
  const Json* found = Find(key);
  if (found == nullptr) return;
  int64_t number = 0;
  if (!GetInt64(*found, &number) || number < min || number > max) {
    Fail(key, absl::StrCat("is ", DescribeJson(*found),
                           "; it must be an integer from ", min, " to ", max));
    return;
  }
  *value = number;
}

void JsonFields::ReadInt(absl::string_view key, int64_t min, int64_t max,
                         int* value) {
  SY_DCHECK(min >= std::numeric_limits<int>::min());
  SY_DCHECK(max <= std::numeric_limits<int>::max());
  int64_t wide = *value;
  ReadInt(key, min, max, &wide);
  *value = static_cast<int>(wide);
}

void JsonFields::ReadIntOrList(absl::string_view key, int64_t min, int64_t max,
                               std::vector<int64_t>* value) {
  const Json* found = Find(key);
  if (found == nullptr) return;
  std::vector<int64_t> numbers;
  const auto add = [&](const Json& element) {
    int64_t number = 0;
    if (!GetInt64(element, &number) || number < min || number > max) {
      return false;
    }
    numbers.push_back(number);
    return true;
  };
  bool good = true;
  if (found->is_array()) {
    for (const Json& element : *found) good = good && add(element);
  } else {
    good = add(*found);
  }
  if (!good) {
    Fail(key, absl::StrCat("is ", DescribeJson(*found),
                           "; it must be integers from ", min, " to ", max));
    return;
  }
  *value = std::move(numbers);
}

void JsonFields::ReadDouble(absl::string_view key, double min, double max,
                            double* value) {
  const Json* found = Find(key);
  if (found == nullptr) return;
  // Written so that NaN fails.
  const double number = found->is_number() ? found->get<double>() : 0;
  if (!found->is_number() || !(number >= min && number <= max)) {
    Fail(key, absl::StrCat("is ", DescribeJson(*found),
                           "; it must be a number from ", min, " to ", max));
    return;
  }
  *value = number;
}

void JsonFields::ReadBool(absl::string_view key, bool* value) {
  const Json* found = Find(key);
  if (found == nullptr) return;
  if (!found->is_boolean()) {
    Fail(key, absl::StrCat("is ", DescribeJson(*found),
                           "; it must be true or false"));
    return;
  }
  *value = found->get<bool>();
}

void JsonFields::ReadString(absl::string_view key, std::string* value) {
  const Json* found = Find(key);
  if (found == nullptr) return;
  if (!found->is_string()) {
    Fail(key,
         absl::StrCat("is ", DescribeJson(*found), "; it must be a string"));
    return;
  }
  *value = found->get<std::string>();
}

}  // namespace switchyard::model
