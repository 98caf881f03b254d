// `switchyard logits`: what the model says about given token ids, for people
// who compare it with another implementation.

#ifndef SWITCHYARD_SWITCHYARD_LOGITS_LOGITS_COMMAND_H_
#define SWITCHYARD_SWITCHYARD_LOGITS_LOGITS_COMMAND_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace switchyard {

struct LogitsOptions {
  std::string model_dir;
  std::vector<int32_t> ids;  // >= 1
  // How many tokens go in together; the rest goes in one at a time. 0: all.
  int64_t prefill = 0;
  std::string out_path;
  int threads = 0;                      // 0: as many as this process may use
  std::string isa = "auto";             // kernels::SelectKernels
  std::string activations = "auto";     // model/checkpoint.h
  std::string kv_cache_dtype = "auto";  // attention_worker/state/kv_dtype.h
};

// Writes the fp32 logits of every token, [ids, V], to out_path as .npy.
// Everything runs in this process, with the parts that serve. Tells on stderr
// how far it is, once it has taken a second. INVALID_ARGUMENT: an option out of
// range, and which range that is; or as Checkpoint::Open, ModelRunner::Create
// and SelectKernels. Errors of the output file name it and the system's reason;
// an older file of that name is then still there, whole.
absl::Status RunLogits(const LogitsOptions& options);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_LOGITS_LOGITS_COMMAND_H_
