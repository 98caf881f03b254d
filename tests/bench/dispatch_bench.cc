// switchyard-bench-dispatch: what a layer's dispatch costs besides the experts.
//
//   switchyard-bench-dispatch [--workers 2] [--compute-micros 0] [--spin-micros
//   0]
//
// Sends rows of the 80B's size (H = 2048, 10 of 512 experts a row, quantised)
// through the dispatcher to worker processes on this machine, over TCP and Unix
// sockets, and to an engine in this process. The engines compute nothing but
// take --compute-micros of CPU, so what is seen is the way there and back.
// Beside it: the same bytes over plain blocking sockets, and where the time
// went (means of one call; the wire's two ways are told apart by an estimate of
// the clocks' difference).
//
// --smoke: a few rounds of each, to show that it works.

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "attention_worker/client/expert_io.h"
#include "attention_worker/client/grpc_expert_client.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/moe/local_expert_client.h"
#include "base/check.h"
#include "base/command_line.h"
#include "base/shutdown_signal.h"
#include "base/thread.h"
#include "expert_worker/service/compute_queue.h"
#include "expert_worker/service/expert_service.h"
#include "experts/expert_engine.h"
#include "metrics/registry.h"
#include "proto/generation.grpc.pb.h"
#include "rpc/address.h"
#include "rpc/channel.h"
#include "rpc/server.h"
#include "tests/bench/raw_exchange.h"

ABSL_FLAG(int, workers, 2, "worker processes");
ABSL_FLAG(int, rounds, 1000,
          "dispatches of each kind; a fifth more come first");
ABSL_FLAG(int, compute_micros, 0, "CPU time of one call in a worker");
ABSL_FLAG(int, overlap_micros, 0, "CPU time of the sender while calls are out");
ABSL_FLAG(int, spin_micros, 0, "looking before sleeping, on both sides");
ABSL_FLAG(int, port, 28100, "first of the workers' ports");
ABSL_FLAG(std::string, only, "", "local, unix or tcp; default: all");
ABSL_FLAG(std::vector<std::string>, rows,
          std::vector<std::string>({"1", "2", "4", "8", "16", "32", "64"}),
          "rows of a dispatch");
ABSL_FLAG(bool, smoke, false, "a few rounds: shows that it works");
ABSL_FLAG(std::string, serve, "", "(of a worker process) its address");
ABSL_FLAG(int, first_expert, 0, "(of a worker process) holds from this");
ABSL_FLAG(int, end_expert, 0, "(of a worker process) up to this");

namespace switchyard::bench {
namespace {

using attention_worker::DispatchRequest;
using attention_worker::ExpertClient;
using attention_worker::ExpertDispatcher;
using attention_worker::ExpertDispatcherOptions;
using attention_worker::ExpertIo;

constexpr int kExperts = 512;
constexpr int kPerRow = 10;
constexpr int64_t kHidden = 2048;
// Of a quantised row: i8, and a scale for each 32.
constexpr int64_t kRowBytes = kHidden + kHidden / 32 * 4;
constexpr int64_t kOutputBytes = kHidden * 4;
constexpr char kFingerprint[] = "bench";

model::ExpertSet Range(int begin, int end) {
  model::ExpertSet set(1, kExperts);
  for (int e = begin; e < end; ++e) set.Insert(0, e);
  return set;
}

void BurnCpu(absl::Duration time) {
  const absl::Time end = absl::Now() + time;
  while (absl::Now() < end) {
  }
}

// Experts that take time and give zeros.
class IdleEngine final : public experts::ExpertEngine {
 public:
  IdleEngine(model::ExpertSet holdings, absl::Duration time)
      : holdings_(std::move(holdings)), time_(time) {}
  model::ExpertSet holdings() const override { return holdings_; }
  int64_t resident_bytes() const override { return 0; }
  kernels::DType weight_dtype() const override { return kernels::DType::kQ8; }
  absl::Status Compute(const experts::ExpertBatch& batch,
                       absl::Span<float> outputs) override {
    std::fill(outputs.begin(), outputs.end(), 0.0F);
    BurnCpu(time_);
    return absl::OkStatus();
  }

 private:
  const model::ExpertSet holdings_;
  const absl::Duration time_;
};

// ---------------------------------------------------------------------------
// A worker process.

absl::Status Serve(const std::string& address) {
  BlockShutdownSignals();
  const auto registry = metrics::Registry::Create();
  expert_worker::ExpertMetrics metrics(registry.get());
  const auto buffers = BufferPool::Create(size_t{256} << 20);
  IdleEngine engine(
      Range(absl::GetFlag(FLAGS_first_expert), absl::GetFlag(FLAGS_end_expert)),
      absl::Microseconds(absl::GetFlag(FLAGS_compute_micros)));
  expert_worker::ComputeQueue queue({.engine = &engine,
                                     .hidden_size = kHidden,
                                     .max_bytes = int64_t{1} << 30,
                                     .buffers = buffers,
                                     .metrics = &metrics});
  expert_worker::ExpertService service(
      {.metrics = &metrics, .buffers = buffers},
      absl::Microseconds(absl::GetFlag(FLAGS_spin_micros)));
  grpc::Service* const services[] = {service.grpc_service()};
  const bool unix_socket = rpc::IsUnixSocket(address);
  int port = 0;
  if (!unix_socket) {
    SY_CHECK(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  }
  absl::StatusOr<std::unique_ptr<rpc::Server>> server =
      rpc::Server::Start(unix_socket ? address : "127.0.0.1", port, services,
                         /*num_queues=*/1);
  if (!server.ok()) return server.status();
  service.Start((*server)->completion_queue(0));
  expert_worker::ServingState state;
  state.identity.model_fingerprint = kFingerprint;
  state.identity.instance_id = address;
  state.identity.num_layers = 1;
  state.identity.num_experts = kExperts;
  state.identity.hidden_size = kHidden;
  state.identity.max_rows_in_flight = 1 << 20;
  state.identity.weight_format = v1::WEIGHT_FORMAT_Q8_GROUP32;
  state.holdings = engine.holdings();
  state.queue = &queue;
  service.SetServing(std::move(state));
  const int listener = RawListen(address);
  StartThread("raw", [listener] { RawServe(listener); }).detach();
  WaitForShutdownSignal();
  service.Drain(absl::Now() + absl::Seconds(5));
  (*server)->Shutdown(absl::ZeroDuration());
  service.Stop();
  return absl::OkStatus();
}

// Worker processes, ended with this.
class Workers {
 public:
  Workers(const std::vector<std::string>& addresses, const char* program) {
    const int n = static_cast<int>(addresses.size());
    for (int i = 0; i < n; ++i) {
      std::vector<std::string> command = {
          program,
          absl::StrCat("--serve=", addresses[i]),
          absl::StrCat("--first_expert=", i * kExperts / n),
          absl::StrCat("--end_expert=", (i + 1) * kExperts / n),
          absl::StrCat("--compute_micros=",
                       absl::GetFlag(FLAGS_compute_micros)),
          absl::StrCat("--spin_micros=", absl::GetFlag(FLAGS_spin_micros))};
      std::vector<char*> arguments;
      for (std::string& argument : command) {
        arguments.push_back(argument.data());
      }
      arguments.push_back(nullptr);
      const pid_t child = fork();
      SY_CHECK(child >= 0);
      if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv("/proc/self/exe", arguments.data());
        _exit(127);
      }
      children_.push_back(child);
    }
  }
  ~Workers() {
    for (const pid_t child : children_) kill(child, SIGTERM);
    for (const pid_t child : children_) waitpid(child, nullptr, 0);
  }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

 private:
  std::vector<pid_t> children_;
};

// ---------------------------------------------------------------------------
// The sender.

struct Percentiles {
  double p50 = 0;
  double p99 = 0;  // us
};

Percentiles Of(std::vector<absl::Duration> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&times](double share) {
    return absl::ToDoubleMicroseconds(
        times[static_cast<size_t>(share * static_cast<double>(times.size()))]);
  };
  return {at(0.5), at(0.99)};
}

template <typename Body>
Percentiles Measure(Body body) {
  const int rounds =
      absl::GetFlag(FLAGS_smoke) ? 20 : absl::GetFlag(FLAGS_rounds);
  std::vector<absl::Duration> times;
  for (int i = -rounds / 5; i < rounds; ++i) {
    const absl::Time start = absl::Now();
    body();
    if (i >= 0) times.push_back(absl::Now() - start);
  }
  return Of(std::move(times));
}

// One step's rows with their experts, the same every time.
class Step {
 public:
  explicit Step(int64_t num_rows) : num_rows_(num_rows) {
    std::mt19937 random(static_cast<uint32_t>(num_rows));
    std::normal_distribution<float> value;
    rows_.resize(static_cast<size_t>(num_rows * kHidden));
    for (float& x : rows_) x = value(random);
    for (int64_t row = 0; row < num_rows; ++row) {
      // As many for each worker of two: what is measured is not imbalance.
      for (int k = 0; k < kPerRow; ++k) {
        const int part = kExperts / kPerRow;
        experts_.push_back(
            static_cast<int32_t>(k * part + static_cast<int>(random() % part)));
      }
    }
    sequence_of_row_.assign(static_cast<size_t>(num_rows), 0);
  }

  void Dispatch(ExpertDispatcher* dispatcher) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    const attention_worker::DispatchResult result = dispatcher->Dispatch(
        {.layer = 0,
         .num_rows = num_rows_,
         .experts_per_row = kPerRow,
         .hidden_size = kHidden,
         .rows = rows_,
         .quantized = {},
         .experts = experts_,
         .sequence_of_row = sequence_of_row_,
         .deadlines = absl::MakeConstSpan(&deadline, 1)},
        [] {
          BurnCpu(absl::Microseconds(absl::GetFlag(FLAGS_overlap_micros)));
        });
    SY_CHECK(result.sequence_status[0].ok());
  }

 private:
  const int64_t num_rows_;
  std::vector<float> rows_;
  std::vector<int32_t> experts_;
  std::vector<int32_t> sequence_of_row_;
};

// Sum and count of a histogram over all its label values but `labels`.
struct Mean {
  double sum = 0;
  double count = 0;
};

Mean ReadHistogram(metrics::Registry* registry, const std::string& name,
                   const std::string& label) {
  Mean mean;
  for (const absl::string_view line :
       absl::StrSplit(registry->Expose(), '\n')) {
    if (!absl::StrContains(line, label)) continue;
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    double value = 0;
    if (words.size() != 2 || !absl::SimpleAtod(words[1], &value)) continue;
    if (absl::StartsWith(line, absl::StrCat(name, "_sum"))) mean.sum += value;
    if (absl::StartsWith(line, absl::StrCat(name, "_count"))) {
      mean.count += value;
    }
  }
  return mean;
}

// Means since the last call, us.
class Hops {
 public:
  explicit Hops(metrics::Registry* registry) : registry_(registry) { Take(); }

  std::string Take() {
    std::string text;
    size_t i = 0;
    const auto add = [&](const std::string& histogram, const char* label,
                         const char* name) {
      const Mean now = ReadHistogram(registry_, histogram,
                                     absl::StrCat(label, "=\"", name, "\""));
      if (last_.size() <= i) last_.emplace_back();
      const double count = now.count - last_[i].count;
      absl::StrAppendFormat(
          &text, "%9.1f",
          count > 0 ? (now.sum - last_[i].sum) / count * 1e6 : 0);
      last_[i++] = now;
    };
    for (const char* part : {"quantize", "send"}) {
      add("switchyard_moe_dispatch_part_seconds", "part", part);
    }
    for (const char* phase :
         {"encode", "wire_out", "queue", "compute", "wire_back", "accept"}) {
      add("switchyard_expert_dispatch_seconds", "phase", phase);
    }
    return text;
  }

 private:
  metrics::Registry* const registry_;
  std::vector<Mean> last_;
};

void PrintHead() {
  std::printf("%-10s %4s %8s %8s | %8s %8s | %8s %8s | %s\n", "", "rows",
              "KiB out", "back", "p50 us", "p99", "raw p50", "p99",
              " quantize     send   encode wire out    queue  compute"
              "     back   accept");
}

void PrintLine(const char* transport, int64_t rows, int64_t out, int64_t back,
               Percentiles ours, Percentiles raw, const std::string& hops) {
  std::printf("%-10s %4d %8.1f %8.1f | %8.1f %8.1f | %8.1f %8.1f | %s\n",
              transport, static_cast<int>(rows), out / 1024.0, back / 1024.0,
              ours.p50, ours.p99, raw.p50, raw.p99, hops.c_str());
  std::fflush(stdout);
}

std::vector<int64_t> RowCounts() {
  if (absl::GetFlag(FLAGS_smoke)) return {1, 64};
  std::vector<int64_t> counts;
  for (const std::string& text : absl::GetFlag(FLAGS_rows)) {
    int64_t rows = 0;
    if (absl::SimpleAtoi(text, &rows) && rows > 0) counts.push_back(rows);
  }
  return counts;
}

absl::Status WaitForWorkers(
    const std::vector<std::shared_ptr<ExpertClient>>& clients) {
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  for (const auto& client : clients) {
    while (!client->health().ok()) {
      if (absl::Now() >= deadline) return client->health();
      absl::SleepFor(absl::Milliseconds(2));
    }
  }
  return absl::OkStatus();
}

absl::Status MeasureTransport(const char* transport,
                              const std::vector<std::string>& addresses) {
  const Workers workers(addresses, "switchyard-bench-dispatch");
  // As an attention worker has: a service with callbacks, whose threads are in
  // gRPC's poller beside this one.
  v1::Generation::CallbackService generation;
  grpc::Service* const services[] = {&generation};
  absl::StatusOr<std::unique_ptr<rpc::Server>> own_server =
      rpc::Server::Start("127.0.0.1", 0, services);
  if (!own_server.ok()) return own_server.status();
  const auto registry = metrics::Registry::Create();
  const auto io = std::make_shared<ExpertIo>(
      absl::Microseconds(absl::GetFlag(FLAGS_spin_micros)));
  std::vector<std::shared_ptr<ExpertClient>> clients;
  ExpertDispatcherOptions options;
  for (const std::string& address : addresses) {
    auto client = attention_worker::NewGrpcExpertClient(
        {.address = address,
         .model_fingerprint = kFingerprint,
         .num_layers = 1,
         .num_experts = kExperts,
         .hidden_size = kHidden,
         .expert_dtype = kernels::DType::kQ8,
         .instance_id = "bench",
         .registry = registry.get(),
         .io = io});
    if (!client.ok()) return client.status();
    clients.push_back(*std::move(client));
    options.clients.push_back(clients.back());
  }
  options.required = Range(0, kExperts);
  options.registry = registry.get();
  options.pump = io;
  options.row_format = kernels::RowFormat::kI8Group32;
  const auto dispatcher = NewExpertDispatcher(std::move(options));
  const absl::Status ready = WaitForWorkers(clients);
  if (!ready.ok()) return ready;
  const auto n = static_cast<int64_t>(addresses.size());
  RawPeers raw(addresses);
  Hops hops(registry.get());
  for (const int64_t rows : RowCounts()) {
    Step step(rows);
    const int64_t out = rows * kRowBytes;
    const int64_t back = rows * kPerRow / n * kOutputBytes;
    const Percentiles plain = Measure([&] {
      raw.Exchange(static_cast<uint32_t>(out), static_cast<uint32_t>(back));
    });
    const Percentiles ours = Measure([&] { step.Dispatch(dispatcher.get()); });
    PrintLine(transport, rows, out, back, ours, plain, hops.Take());
  }
  return absl::OkStatus();
}

void MeasureInProcess() {
  const auto registry = metrics::Registry::Create();
  IdleEngine engine(Range(0, kExperts),
                    absl::Microseconds(absl::GetFlag(FLAGS_compute_micros)));
  ExpertDispatcherOptions options;
  options.clients.push_back(
      std::make_shared<attention_worker::LocalExpertClient>(&engine,
                                                            registry.get()));
  options.required = Range(0, kExperts);
  options.registry = registry.get();
  options.row_format = kernels::RowFormat::kI8Group32;
  const auto dispatcher = NewExpertDispatcher(std::move(options));
  Hops hops(registry.get());
  for (const int64_t rows : RowCounts()) {
    Step step(rows);
    const Percentiles ours = Measure([&] { step.Dispatch(dispatcher.get()); });
    PrintLine("in process", rows, 0, 0, ours, {}, hops.Take());
  }
}

absl::Status Run(int argc, char** argv) {
  const auto arguments = ParseCommandLine(
      argc, argv, "switchyard-bench-dispatch: what a dispatch costs");
  if (!arguments.ok()) return arguments.status();
  if (!absl::GetFlag(FLAGS_serve).empty()) {
    return Serve(absl::GetFlag(FLAGS_serve));
  }
  char directory[] = "/tmp/switchyard-bench-XXXXXX";
  SY_CHECK(mkdtemp(directory) != nullptr);
  std::vector<std::string> tcp;
  std::vector<std::string> sockets;
  for (int i = 0; i < absl::GetFlag(FLAGS_workers); ++i) {
    tcp.push_back(absl::StrCat("127.0.0.1:", absl::GetFlag(FLAGS_port) + i));
    sockets.push_back(absl::StrCat("unix:", directory, "/", i));
  }
  const auto wanted = [only = absl::GetFlag(FLAGS_only)](const char* what) {
    return only.empty() || only == what;
  };
  PrintHead();
  absl::Status status;
  if (wanted("local")) MeasureInProcess();
  if (wanted("unix")) status = MeasureTransport("unix", sockets);
  if (wanted("tcp") && status.ok()) status = MeasureTransport("tcp", tcp);
  for (const std::string& socket : sockets) {
    unlink(socket.substr(5).c_str());
    unlink((socket.substr(5) + ".raw").c_str());
  }
  rmdir(directory);
  return status;
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) {
  switchyard::rpc::PollEachQueueAlone();
  const absl::Status status = switchyard::bench::Run(argc, argv);
  if (status.ok()) return 0;
  std::fprintf(stderr, "switchyard-bench-dispatch: %s\n",
               status.ToString().c_str());
  return 1;
}
