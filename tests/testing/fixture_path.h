// Where the test data is.

#ifndef SWITCHYARD_TESTS_TESTING_FIXTURE_PATH_H_
#define SWITCHYARD_TESTS_TESTING_FIXTURE_PATH_H_

#include <string>

#include "absl/strings/string_view.h"

namespace switchyard::testing {

// The absolute path of tests/fixtures/`name`.
std::string FixturePath(absl::string_view name);

// The absolute path of models/`name`: ModelPath("demo/config.json").
std::string ModelPath(absl::string_view name);

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_FIXTURE_PATH_H_
