// A folder for one test.

#ifndef SWITCHYARD_TESTS_TESTING_TEMP_DIR_H_
#define SWITCHYARD_TESTS_TESTING_TEMP_DIR_H_

#include <string>

#include "absl/strings/string_view.h"

namespace switchyard::testing {

// Makes an empty folder of a name of its own, and removes it with all that is
// in it at the end. Aborts when the disk doesn't play along: no test can go on
// then.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }

  // The path of `name` ("a/b.json") in it; nothing is made.
  std::string File(absl::string_view name) const;

  // Writes a file, and the folders above it; returns its path.
  std::string Write(absl::string_view name, absl::string_view content) const;

 private:
  std::string path_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_TEMP_DIR_H_
