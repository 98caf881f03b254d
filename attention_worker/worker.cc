#include "attention_worker/worker.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <random>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "attention_worker/load_progress.h"
#include "attention_worker/model_stack.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "base/version.h"
#include "kernels/amx_kernels.h"

namespace switchyard::attention_worker {
namespace {

// Drain() looks this often whether requests are left.
constexpr absl::Duration kDrainPoll = absl::Milliseconds(10);
// Of expert ids in a message.
constexpr size_t kMaxExpertListBytes = 200;

// Differs between processes on all machines, so it is drawn, not counted.
std::string NewInstanceId() {
  std::random_device random;
  return absl::StrFormat("%08x%08x", random(), random());
}

std::string DirectoryName(const std::string& path) {
  const std::filesystem::path directory =
      std::filesystem::path(path).lexically_normal();
  return directory.has_filename() ? directory.filename().string()
                                  : directory.parent_path().filename().string();
}

// With a name for the metrics.
AttentionWorker::Options Named(AttentionWorker::Options options) {
  if (options.model_name.empty()) {
    options.model_name = DirectoryName(options.model_dir);
  }
  return options;
}

// "32 (layer, expert) pairs have no holder: experts 16-31 of layer 0, ..."
std::string DescribeMissing(const model::ExpertSet& missing) {
  for (int layer = 0; layer < missing.num_layers(); ++layer) {
    std::vector<int> experts;
    for (int expert = 0; expert < missing.num_experts(); ++expert) {
      if (missing.Contains(layer, expert)) experts.push_back(expert);
    }
    if (experts.empty()) continue;
    std::string list = model::FormatExpertList(experts);
    if (list.size() > kMaxExpertListBytes) {
      list = absl::StrCat(list.substr(0, kMaxExpertListBytes), "...");
    }
    return absl::StrCat(missing.size(),
                        " (layer, expert) pairs have no holder: of layer ",
                        layer, " experts ", list);
  }
  return "";
}

class AttentionWorkerImpl final : public AttentionWorker {
 public:
  explicit AttentionWorkerImpl(Options options)
      : options_(Named(std::move(options))),
        instance_id_(NewInstanceId()),
        progress_(options_.registry),
        stack_(options_, instance_id_, &progress_) {
    options_.registry
        ->AddGauge("switchyard_kernels_info",
                   "Always 1; the label tells what this process computes with.",
                   {{"kernels", kernels::DescribeKernels()}})
        ->Set(1);
  }

  ~AttentionWorkerImpl() override {
    if (loader_.joinable()) loader_.join();
    Stop();
  }

  void StartLoading() override {
    SY_CHECK(!loader_.joinable());
    loader_ = StartThread("sy-load", [this] { LoadAndReport(); });
  }

  absl::StatusOr<Engine*> engine() const override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (draining_) {
      return absl::UnavailableError(
          "this worker is draining; send the request to another one");
    }
    if (engine_ == nullptr) {
      return absl::UnavailableError(
          absl::StrCat("this worker is loading: ", LoadingMessage()));
    }
    return engine_;
  }

  absl::StatusOr<Engine*> engine_to_leave() const override
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (engine_ == nullptr) {
      return absl::UnavailableError(
          absl::StrCat("this worker is loading: ", LoadingMessage()));
    }
    return engine_;
  }

  WorkerInfo info() const override ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Status WaitUntilLoaded(absl::Time deadline) const override
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    while (!load_ended_) {
      if (!changed_.WaitUntil(&mutex_, deadline) && absl::Now() >= deadline) {
        break;
      }
    }
    return load_ended_ ? load_status_
                       : absl::DeadlineExceededError(
                             absl::StrCat("still loading: ", LoadingMessage()));
  }

  void SetExpertClients(std::vector<std::shared_ptr<ExpertClient>> clients)
      override ABSL_LOCKS_EXCLUDED(clients_mutex_) {
    // Held while the old ones end: sets do not overtake one another.
    MutexLock lock(&clients_mutex_);
    if (has_dispatcher_) stack_.dispatcher()->SetClients(clients);
    clients_ = std::move(clients);
  }

  std::vector<uint32_t> TakeExpertHeat() override
      ABSL_LOCKS_EXCLUDED(clients_mutex_) {
    MutexLock lock(&clients_mutex_);
    return has_dispatcher_ ? stack_.heat()->Take() : std::vector<uint32_t>();
  }

  bool Drain(absl::Time deadline) override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    draining_ = true;
    while (engine_ != nullptr) {
      const EngineLoad load = engine_->load();
      // What the last request left may be on its way to another worker.
      if (load.running + load.waiting + load.transfers == 0) break;
      const absl::Time now = absl::Now();
      if (now >= deadline) return false;
      changed_.WaitUntil(&mutex_, std::min(deadline, now + kDrainPoll));
    }
    return true;
  }

  void Stop() override ABSL_LOCKS_EXCLUDED(mutex_) {
    Engine* engine = nullptr;
    {
      MutexLock lock(&mutex_);
      draining_ = true;
      engine = engine_;
    }
    if (engine != nullptr) engine->Stop();
  }

 private:
  void LoadAndReport() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Load() ABSL_LOCKS_EXCLUDED(mutex_, clients_mutex_);
  std::string LoadingMessage() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const std::string instance_id_;
  LoadProgress progress_;
  ModelStack stack_;  // made by the loading thread

  // Of the expert workers, as they come and go.
  mutable Mutex clients_mutex_;
  std::vector<std::shared_ptr<ExpertClient>> clients_
      ABSL_GUARDED_BY(clients_mutex_);
  bool has_dispatcher_ ABSL_GUARDED_BY(clients_mutex_) = false;

  mutable std::atomic<bool> were_complete_{false};  // every expert had a holder

  mutable Mutex mutex_;
  mutable CondVar changed_;
  bool load_ended_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status load_status_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  WorkerInfo static_info_ ABSL_GUARDED_BY(mutex_);    // what loading found out
  Engine* engine_ ABSL_GUARDED_BY(mutex_) = nullptr;  // the stack's, set once

  std::thread loader_;
};

void AttentionWorkerImpl::LoadAndReport() {
  const absl::Time start = absl::Now();
  const absl::Status status = Load();
  if (status.ok()) {
    LogInfo(absl::StrCat("loaded ", options_.model_dir, " in ",
                         absl::FormatDuration(absl::Trunc(
                             absl::Now() - start, absl::Milliseconds(1)))));
  } else {
    LogError(absl::StrCat("cannot load ", options_.model_dir, ": ",
                          status.ToString()));
  }
  {
    MutexLock lock(&mutex_);
    load_ended_ = true;
    load_status_ = status;
    changed_.SignalAll();
  }
  if (options_.on_loaded) options_.on_loaded(status);
}

absl::Status AttentionWorkerImpl::Load() {
  SY_RETURN_IF_ERROR(stack_.OpenCheckpoint());
  {
    MutexLock lock(&mutex_);
    static_info_.model_fingerprint = stack_.checkpoint().fingerprint();
    static_info_.vocab_size = stack_.checkpoint().config().vocab_size;
  }
  SY_ASSIGN_OR_RETURN(std::vector<std::shared_ptr<ExpertClient>> clients,
                      stack_.MakeExperts());
  if (clients.empty() && !options_.expert_clients_change) {
    return absl::InvalidArgumentError("there is no expert worker");
  }
  {
    MutexLock lock(&clients_mutex_);
    if (!options_.expert_clients_change) clients_ = std::move(clients);
    stack_.dispatcher()->SetClients(clients_);
    has_dispatcher_ = true;
  }
  SY_RETURN_IF_ERROR(stack_.MakeEngine());
  MutexLock lock(&mutex_);
  static_info_.max_model_len = stack_.plan().max_model_len;
  engine_ = stack_.engine();
  return absl::OkStatus();
}

std::string AttentionWorkerImpl::LoadingMessage() const {
  if (load_ended_ && !load_status_.ok()) {
    return absl::StrCat("failed: ", load_status_.message());
  }
  return progress_.message();
}

WorkerInfo AttentionWorkerImpl::info() const {
  WorkerInfo info;
  bool loaded = false;
  bool draining = false;
  {
    MutexLock lock(&mutex_);
    info = static_info_;
    info.loading_progress = progress_.share();
    loaded = engine_ != nullptr;
    draining = draining_;
    if (loaded) {
      info.load = engine_->load();
      const StateShape& shape = engine_->state_shape();
      info.state_fixed_bytes = shape.FixedBytes();
      info.state_token_bytes =
          shape.BytesPerToken() + static_cast<int64_t>(sizeof(int32_t));
    } else {
      info.message = LoadingMessage();
    }
  }
  info.instance_id = instance_id_;
  info.version = kVersion;
  if (loaded) {
    const model::ExpertSet missing = stack_.dispatcher()->MissingExperts();
    // Who computes what is missing is ready all the same, but not before the
    // expert workers have been there: a pool that starts is not to be computed
    // here.
    if (missing.empty()) were_complete_.store(true, std::memory_order_relaxed);
    const bool stands_in = options_.local_fallback &&
                           were_complete_.load(std::memory_order_relaxed);
    info.state = missing.empty() || stands_in ? WorkerState::kReady
                                              : WorkerState::kWaitingExperts;
    info.message = DescribeMissing(missing);
    std::vector<std::shared_ptr<ExpertClient>> clients;
    {
      MutexLock lock(&clients_mutex_);
      clients = clients_;
    }
    for (const auto& client : clients) {
      const absl::Status health = client->health();
      if (missing.empty() || health.ok()) continue;
      absl::StrAppend(&info.message, "; ", client->name(), ": ",
                      health.message());
    }
  }
  if (draining) {
    info.state = WorkerState::kDraining;
    info.message = "draining";
  }
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionWorker>> AttentionWorker::Create(
    Options options) {
  SY_RETURN_IF_ERROR(CheckOptions(options));
  return std::unique_ptr<AttentionWorker>(
      new AttentionWorkerImpl(std::move(options)));
}

}  // namespace switchyard::attention_worker
