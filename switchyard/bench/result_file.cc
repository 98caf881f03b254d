#include "switchyard/bench/result_file.h"

#include <cerrno>
#include <cstdio>
#include <fstream>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace switchyard::bench {

absl::Status WriteResultFile(const std::string& path, const std::string& text) {
  // Beside the file at first, so that nobody finds half of one.
  const std::string partial = absl::StrCat(path, ".part");
  const auto error = [&path](const char* doing) {
    return absl::Status(absl::ErrnoToStatusCode(errno),
                        absl::StrCat(doing, " ", path, " (--json): ",
                                     std::generic_category().message(errno)));
  };
  errno = 0;
  {
    std::ofstream file(partial, std::ios::binary | std::ios::trunc);
    if (!file) return error("cannot create");
    file << text;
    file.close();
    if (!file) {
      const absl::Status status = error("cannot write");
      std::remove(partial.c_str());
      return status;
    }
  }
  if (std::rename(partial.c_str(), path.c_str()) != 0) {
    return error("cannot rename to");
  }
  return absl::OkStatus();
}

}  // namespace switchyard::bench
