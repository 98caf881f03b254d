// `switchyard verify`: whether a checkpoint's files are what they were.

#ifndef SWITCHYARD_SWITCHYARD_VERIFY_VERIFY_COMMAND_H_
#define SWITCHYARD_SWITCHYARD_VERIFY_VERIFY_COMMAND_H_

#include <ostream>
#include <string>

#include "absl/status/status.h"

namespace switchyard {

struct VerifyCommandOptions {
  std::string model_dir;
  int threads = 0;  // 0: as many as this process may use
};

// Checks everything that has a checksum (model::VerifyCheckpoint), telling on
// `out` how far it is and each damaged tensor or file. DATA_LOSS: how many are
// damaged; other errors: what could not be read.
absl::Status RunVerify(const VerifyCommandOptions& options, std::ostream& out,
                       bool terminal);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_VERIFY_VERIFY_COMMAND_H_
