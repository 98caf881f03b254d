// `switchyard bench serving`: what users feel. Requests go through an engine
// with its own threads and clock, tokens in and tokens out; HTTP and text are
// not there.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_SERVING_SERVING_COMMAND_H_
#define SWITCHYARD_SWITCHYARD_BENCH_SERVING_SERVING_COMMAND_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "switchyard/bench/serving/concurrency.h"
#include "switchyard/bench/serving/conversation.h"
#include "switchyard/bench/serving/drafts.h"
#include "switchyard/bench/serving/mixed.h"

namespace switchyard {

struct BenchServingOptions {
  std::string model_dir;
  int threads = 0;               // 0: as many as this process may use
  std::string cpus;              // one thread on each alone, "0-7,16"; "": any
  std::string weights = "auto";  // or "copy", "map": model/weight_copies.h
  std::string activations = "auto";  // model/checkpoint.h
  std::string isa = "auto";          // kernels::SelectKernels
  std::string json_path;             // "": none

  // "conversation", "prefix", "drafts", "concurrency", "stall", "mixed"; empty:
  // all, "drafts" only if the model has an MTP head.
  std::vector<std::string> only;
  // Lengths here are cut to what the model's context holds; reports say what
  // was measured.
  bench::ConversationOptions conversation;
  bench::PrefixOptions prefix;
  bench::DraftsOptions drafts;
  bench::ConcurrencyOptions concurrency;
  bench::StallOptions stall;
  bench::MixedOptions mixed;
};

// Tables to `out`, progress to stderr, and everything to json_path, whole or
// not at all; a bar that is missed is said, and no error. INVALID_ARGUMENT: an
// option out of range, and which range that is. FAILED_PRECONDITION: "drafts"
// without an MTP head. Else as Checkpoint::Open and ServingModel. Errors of the
// file name it and the system's reason.
absl::Status RunBenchServing(const BenchServingOptions& options,
                             std::ostream& out);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_BENCH_SERVING_SERVING_COMMAND_H_
