// `switchyard bench`: how fast a model runs here, as shares of what the machine
// can do, and where the time goes.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_BENCH_COMMAND_H_
#define SWITCHYARD_SWITCHYARD_BENCH_BENCH_COMMAND_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard {

struct BenchOptions {
  std::string model_dir;
  int threads = 0;               // 0: as many as this process may use
  std::string cpus;              // one thread on each alone, "0-7,16"; "": any
  std::string weights = "auto";  // or "copy", "map": model/weight_copies.h
  std::string activations = "auto";     // model/checkpoint.h
  std::string kv_cache_dtype = "auto";  // attention_worker/state/kv_dtype.h
  std::string isa = "auto";             // kernels::SelectKernels
  std::string json_path;                // "": none

  std::vector<int64_t> batches = {1, 4, 8, 16, 32};       // sequences, >= 1
  std::vector<int64_t> contexts = {0, 4096, 16384};       // tokens, >= 0
  std::vector<int64_t> prompts = {128, 512, 2048};        // tokens, >= 1
  std::vector<std::string> only = {"decode", "prefill"};  // "limits" too
  int64_t repeat = 5;
  int64_t steps = 32;            // of decode, in a repetition
  int64_t prefill_chunk = 1024;  // prompt tokens of a step
  double max_seconds = 60;       // of one measurement
  // For each limit, before and after; less between repetitions. 0: shortest,
  // and not between repetitions.
  double limit_seconds = 0.5;

  int64_t expert_workers = 0;     // processes with the experts; 0: in process
  std::string transport = "tcp";  // or "unix"
  int64_t worker_threads = 1;     // of each
};

// "1,4,8" as numbers. INVALID_ARGUMENT names `flag` and what is no number of at
// least `least`.
absl::StatusOr<std::vector<int64_t>> ParseNumbers(absl::string_view flag,
                                                  absl::string_view text,
                                                  int64_t least);

// Tables to `out`, progress to stderr, and everything to json_path, whole or
// not at all. INVALID_ARGUMENT: an option out of range, and which range that
// is; or as BenchModel::Create. Errors of the file name it and the system's
// reason.
absl::Status RunBench(const BenchOptions& options, std::ostream& out);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_BENCH_BENCH_COMMAND_H_
