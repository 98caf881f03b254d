// `switchyard convert`: a model from Hugging Face's layout to ours.

#ifndef SWITCHYARD_SWITCHYARD_CONVERT_CONVERT_COMMAND_H_
#define SWITCHYARD_SWITCHYARD_CONVERT_CONVERT_COMMAND_H_

#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/weight_formats.h"

namespace switchyard {

// --format, and --experts, --dense, --lm-head, which override it where they are
// not empty. INVALID_ARGUMENT names the flag: none is given, or a wrong name.
struct FormatFlags {
  std::string format;
  std::string experts;
  std::string dense;
  std::string lm_head;
};
absl::StatusOr<model::WeightFormats> FormatsFromFlags(const FormatFlags& flags);

struct ConvertCommandOptions {
  std::string model_dir;
  std::string out_dir;
  FormatFlags formats;
  int threads = 0;  // 0: as many as this process may use
};

// Tells on `out` how far it is (`terminal`: as a bar), and at the end what was
// written. Errors as model::ConvertCheckpoint and FormatsFromFlags.
absl::Status RunConvert(const ConvertCommandOptions& options, std::ostream& out,
                        bool terminal);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_CONVERT_CONVERT_COMMAND_H_
