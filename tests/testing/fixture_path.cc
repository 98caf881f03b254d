#include "tests/testing/fixture_path.h"

#include "absl/strings/str_cat.h"

namespace switchyard::testing {

std::string FixturePath(absl::string_view name) {
  return absl::StrCat(SWITCHYARD_SOURCE_DIR "/tests/fixtures/", name);
}

std::string ModelPath(absl::string_view name) {
  return absl::StrCat(SWITCHYARD_SOURCE_DIR "/models/", name);
}

}  // namespace switchyard::testing
