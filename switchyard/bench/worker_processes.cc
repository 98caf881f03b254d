#include "switchyard/bench/worker_processes.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"

namespace switchyard::bench {
namespace {

constexpr char kBinary[] = "switchyard-expert-worker";
constexpr int64_t kMaxLogBytes = 64 << 20;
constexpr size_t kLastWords = 2000;  // bytes of a log in a message
constexpr absl::Duration kGrace = absl::Seconds(10);

absl::StatusOr<std::string> FindBinary(const std::string& given) {
  std::error_code error;
  std::filesystem::path path = given;
  if (given.empty()) {
    path = std::filesystem::read_symlink("/proc/self/exe", error);
    path.replace_filename(kBinary);
  }
  if (!std::filesystem::exists(path, error)) {
    return absl::NotFoundError(
        absl::StrCat(path.string(), " is not there: build ", kBinary,
                     " beside this program, or do without --expert-workers"));
  }
  return path.string();
}

// A port that nobody listens on now. Somebody may take it before the worker
// does, which then says so.
absl::StatusOr<int> FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  const bool ok = fd >= 0 && bind(fd, generic, size) == 0 &&
                  getsockname(fd, generic, &size) == 0;
  const int error = errno;
  if (fd >= 0) close(fd);
  if (!ok) {
    return absl::UnavailableError(
        absl::StrCat("finding a free port on loopback: ",
                     std::generic_category().message(error)));
  }
  return ntohs(address.sin_port);
}

// Ends with its parent; what it says goes to `log`.
absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& command,
                            const std::string& log) {
  std::vector<char*> argv;
  argv.reserve(command.size() + 1);
  for (const std::string& word : command) {
    argv.push_back(const_cast<char*>(word.c_str()));
  }
  argv.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    return absl::UnavailableError(
        absl::StrCat("fork: ", std::generic_category().message(errno)));
  }
  if (pid == 0) {
    // Only calls that are safe between fork and exec in a process with threads.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(126);
    const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (out >= 0) {
      dup2(out, STDOUT_FILENO);
      dup2(out, STDERR_FILENO);
    }
    execv(argv[0], argv.data());
    _exit(127);
  }
  return pid;
}

std::string LastWords(const std::string& log) {
  absl::StatusOr<std::string> text = ReadFile(log, kMaxLogBytes);
  if (!text.ok()) return std::string(text.status().message());
  return text->size() > kLastWords ? text->substr(text->size() - kLastWords)
                                   : *std::move(text);
}

}  // namespace

int64_t ResidentBytesOf(pid_t pid) {
  const absl::StatusOr<std::string> statm =
      ReadFile(absl::StrCat("/proc/", pid, "/statm"), 4096);
  if (!statm.ok()) return 0;
  const std::vector<std::string> fields = absl::StrSplit(*statm, ' ');
  int64_t pages = 0;
  if (fields.size() < 2 || !absl::SimpleAtoi(fields[1], &pages)) return 0;
  return pages * sysconf(_SC_PAGESIZE);
}

absl::StatusOr<std::unique_ptr<WorkerProcesses>> WorkerProcesses::Start(
    const Options& options) {
  SY_ASSIGN_OR_RETURN(const std::string binary, FindBinary(options.binary));
  std::unique_ptr<WorkerProcesses> workers(new WorkerProcesses());
  std::string pattern =
      (std::filesystem::temp_directory_path() / "switchyard-bench-XXXXXX")
          .string();
  if (mkdtemp(pattern.data()) == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("making the directory ", pattern, ": ",
                     std::generic_category().message(errno)));
  }
  workers->directory_ = pattern;
  for (int i = 0; i < options.count; ++i) {
    std::vector<std::string> command = {
        binary,
        absl::StrCat("--model=", options.model_dir),
        absl::StrCat("--slice=", i + 1, "/", options.count),
        absl::StrCat("--threads=", options.threads),
        absl::StrCat("--isa=", options.isa),
        absl::StrCat("--activations=", options.activations),
        absl::StrCat("--weights=", options.weights),
        "--metrics_port=-1"};
    if (options.transport == SocketKind::kUnix) {
      const std::string address =
          absl::StrCat("unix:", workers->directory_, "/worker-", i, ".socket");
      command.push_back(absl::StrCat("--host=", address));
      workers->addresses_.push_back(address);
    } else {
      SY_ASSIGN_OR_RETURN(const int port, FreePort());
      command.push_back("--host=127.0.0.1");
      command.push_back(absl::StrCat("--port=", port));
      workers->addresses_.push_back(absl::StrCat("127.0.0.1:", port));
    }
    const std::string log =
        absl::StrCat(workers->directory_, "/worker-", i, ".log");
    SY_ASSIGN_OR_RETURN(const pid_t pid, Spawn(command, log));
    workers->logs_.push_back(log);
    workers->pids_.push_back(pid);
  }
  return workers;
}

WorkerProcesses::~WorkerProcesses() {
  for (const pid_t pid : pids_) {
    if (pid > 0) kill(pid, SIGTERM);
  }
  const absl::Time give_up = absl::Now() + kGrace;
  for (const pid_t pid : pids_) {
    if (pid <= 0) continue;
    while (waitpid(pid, nullptr, WNOHANG) == 0) {
      if (absl::Now() > give_up) {
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
        break;
      }
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
  std::error_code ignored;
  if (!directory_.empty()) std::filesystem::remove_all(directory_, ignored);
}

absl::Status WorkerProcesses::CheckAlive() {
  for (size_t i = 0; i < pids_.size(); ++i) {
    if (pids_[i] > 0 && waitpid(pids_[i], nullptr, WNOHANG) == 0) continue;
    pids_[i] = -1;
    return absl::UnavailableError(
        absl::StrCat("the expert worker at ", addresses_[i],
                     " has ended: ", LastWords(logs_[i])));
  }
  return absl::OkStatus();
}

int64_t WorkerProcesses::ResidentBytes() const {
  int64_t bytes = 0;
  for (const pid_t pid : pids_) {
    if (pid > 0) bytes += ResidentBytesOf(pid);
  }
  return bytes;
}

}  // namespace switchyard::bench
