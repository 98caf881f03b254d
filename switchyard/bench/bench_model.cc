#include "switchyard/bench/bench_model.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "attention_worker/client/expert_io.h"
#include "attention_worker/client/grpc_expert_client.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "attention_worker/moe/local_expert_client.h"
#include "base/status_macros.h"
#include "model/expert_set.h"
#include "rpc/channel.h"

namespace switchyard::bench {
namespace {

using attention_worker::ExpertClient;
using attention_worker::ExpertDispatcherOptions;
using attention_worker::GrpcExpertClientOptions;
using attention_worker::LocalExpertClient;
using attention_worker::ModelRunner;

// Of loading expert workers: tens of gigabytes from a slow disk.
constexpr absl::Duration kWorkersDeadline = absl::Minutes(30);
constexpr absl::Duration kWorkersPoll = absl::Milliseconds(20);

// The experts that the main model needs; the MTP head's are not measured.
model::ExpertSet MainExperts(const model::Checkpoint& checkpoint) {
  const model::ModelConfig& config = checkpoint.config();
  model::ExpertSet experts(checkpoint.num_expert_layers(), config.num_experts);
  for (int layer = 0; layer < config.num_hidden_layers; ++layer) {
    if (!checkpoint.LayerHasExperts(layer)) continue;
    for (int e = 0; e < config.num_experts; ++e) experts.Insert(layer, e);
  }
  return experts;
}

}  // namespace

BenchModel::Affinity::Affinity() {
  CPU_ZERO(&cpus_);
  sched_getaffinity(0, sizeof(cpus_), &cpus_);
}

BenchModel::Affinity::~Affinity() {
  sched_setaffinity(0, sizeof(cpus_), &cpus_);
}

BenchModel::~BenchModel() = default;

absl::StatusOr<std::unique_ptr<BenchModel>> BenchModel::Create(
    Options options) {
  std::unique_ptr<BenchModel> model(new BenchModel());
  model->checkpoint_ = options.checkpoint;
  model->registry_ = metrics::Registry::Create();
  model->pool_ = NewThreadPool({.num_threads = options.threads,
                                .name = "compute",
                                .cpus = options.cpus});
  // Workers load while this process does.
  if (options.workers.count > 0) {
    rpc::PollEachQueueAlone();
    options.workers.model_dir = options.checkpoint->directory();
    SY_ASSIGN_OR_RETURN(model->workers_,
                        WorkerProcesses::Start(options.workers));
  }
  SY_RETURN_IF_ERROR(model->MakeExperts(options));

  ExpertDispatcherOptions dispatcher;
  dispatcher.clients = model->clients_;
  dispatcher.required = MainExperts(*model->checkpoint_);
  dispatcher.registry = model->registry_.get();
  dispatcher.pool = model->pool_.get();
  dispatcher.pump = model->io_;
  dispatcher.row_format =
      kernels::RowFormatOf(model->checkpoint_->expert_dtype());
  model->dispatcher_ = NewExpertDispatcher(std::move(dispatcher));
  model->counting_ =
      std::make_unique<CountingDispatcher>(model->dispatcher_.get());

  ModelRunner::Options runner;
  runner.checkpoint = model->checkpoint_;
  runner.dispatcher = model->counting_.get();
  runner.pool = model->pool_.get();
  runner.weights = options.weights;
  runner.kv_dtype = options.kv_dtype;
  runner.timer = &model->timer_;
  runner.progress = [&options](int64_t done, int64_t total) {
    if (options.progress) options.progress("reading layers", done, total);
  };
  SY_ASSIGN_OR_RETURN(model->runner_, ModelRunner::Create(std::move(runner)));
  SY_RETURN_IF_ERROR(model->WaitForExperts());
  return model;
}

absl::Status BenchModel::MakeExperts(const Options& options) {
  if (workers_ == nullptr) {
    experts::ExpertEngine::Options engine;
    engine.checkpoint = checkpoint_;
    engine.experts = MainExperts(*checkpoint_);
    engine.pool = pool_.get();
    engine.weights = options.weights;
    engine.progress = [&options](int64_t done, int64_t total) {
      if (options.progress) options.progress("reading experts", done, total);
    };
    SY_ASSIGN_OR_RETURN(experts_,
                        experts::ExpertEngine::Create(std::move(engine)));
    clients_.push_back(
        std::make_shared<LocalExpertClient>(experts_.get(), registry_.get()));
    return absl::OkStatus();
  }
  // No spinning: the workers compute on the same CPUs.
  io_ = std::make_shared<attention_worker::ExpertIo>(absl::ZeroDuration());
  for (const std::string& address : workers_->addresses()) {
    GrpcExpertClientOptions client;
    client.address = address;
    client.model_fingerprint = checkpoint_->fingerprint();
    client.num_layers = checkpoint_->num_expert_layers();
    client.num_experts = checkpoint_->config().num_experts;
    client.hidden_size = checkpoint_->config().hidden_size;
    client.expert_dtype = checkpoint_->expert_dtype();
    client.instance_id = "bench";
    client.registry = registry_.get();
    client.io = io_;
    SY_ASSIGN_OR_RETURN(std::unique_ptr<ExpertClient> made,
                        NewGrpcExpertClient(std::move(client)));
    clients_.push_back(std::move(made));
  }
  return absl::OkStatus();
}

absl::Status BenchModel::WaitForExperts() {
  const absl::Time give_up = absl::Now() + kWorkersDeadline;
  while (!dispatcher_->MissingExperts().empty()) {
    if (workers_ != nullptr) SY_RETURN_IF_ERROR(workers_->CheckAlive());
    if (absl::Now() > give_up) {
      std::string why;
      for (const auto& client : clients_) {
        absl::StrAppend(&why, "; ", client->name(), ": ",
                        client->health().ToString());
      }
      return absl::DeadlineExceededError(
          absl::StrCat("no expert workers after ",
                       absl::FormatDuration(kWorkersDeadline), why));
    }
    absl::SleepFor(kWorkersPoll);
  }
  return absl::OkStatus();
}

}  // namespace switchyard::bench
