// Expert workers as processes of their own on this machine.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_WORKER_PROCESSES_H_
#define SWITCHYARD_SWITCHYARD_BENCH_WORKER_PROCESSES_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "switchyard/bench/limits/socket_round_trip.h"

namespace switchyard::bench {

// They live as long as this, or this process, does. One thread's: the one that
// called Start must outlive them.
class WorkerProcesses {
 public:
  struct Options {
    std::string model_dir;
    int count = 0;  // slices of the experts
    SocketKind transport = SocketKind::kTcp;
    int threads = 1;  // of each
    std::string isa = "auto";
    std::string activations = "auto";
    std::string weights = "auto";
    // Of switchyard-expert-worker; "": beside this program.
    std::string binary;
  };

  // Starts them; they then load. NOT_FOUND: no such binary. UNAVAILABLE: the
  // system's reason. REQUIRES: count >= 1.
  static absl::StatusOr<std::unique_ptr<WorkerProcesses>> Start(
      const Options& options);
  // Ends them.
  ~WorkerProcesses();

  const std::vector<std::string>& addresses() const { return addresses_; }
  // UNAVAILABLE if one has ended, with its last words.
  absl::Status CheckAlive();
  // Bytes in RAM of all together.
  int64_t ResidentBytes() const;

 private:
  WorkerProcesses() = default;

  std::string directory_;  // of logs and sockets; removed at the end
  std::vector<std::string> addresses_;
  std::vector<std::string> logs_;
  std::vector<pid_t> pids_;  // -1: has ended
};

// Bytes in RAM of a process; 0 if it is gone.
int64_t ResidentBytesOf(pid_t pid);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_WORKER_PROCESSES_H_
