#include <string>

#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/json.h"
#include "tests/fuzz/fuzz_target.h"

namespace switchyard::fuzz {

void FuzzJson(absl::Span<const uint8_t> bytes) {
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()),
                               bytes.size());
  const auto value = ParseJson(text, {.max_bytes = 1 << 20, .max_depth = 64});
  if (!value.ok()) {
    SY_CHECK(!value.status().message().empty());
    return;
  }
  // What was parsed prints, and the print parses to the same value.
  const auto again = ParseJson(DumpJson(*value));
  SY_CHECK(again.ok() && *again == *value);
  const auto from_python = ParseJson(DumpJsonLikePython(*value));
  SY_CHECK(from_python.ok() && *from_python == *value);
}

}  // namespace switchyard::fuzz

SWITCHYARD_FUZZER_ENTRY(FuzzJson);
