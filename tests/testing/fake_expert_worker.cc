#include "tests/testing/fake_expert_worker.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "rpc/address.h"

namespace switchyard::testing {
namespace {

model::ExpertSet HoldingsOf(const FakeExpertWorker::Options& options) {
  if (options.holdings.num_layers() > 0) return options.holdings;
  model::ExpertSet all(options.identity.num_layers,
                       options.identity.num_experts);
  for (int l = 0; l < all.num_layers(); ++l) {
    for (int e = 0; e < all.num_experts(); ++e) all.Insert(l, e);
  }
  return all;
}

expert_worker::ConnectionOptions Completed(
    expert_worker::ConnectionOptions options,
    expert_worker::ExpertMetrics* metrics,
    std::shared_ptr<BufferPool> buffers) {
  options.metrics = metrics;
  options.buffers = std::move(buffers);
  return options;
}

}  // namespace

FakeExpertWorker::FakeExpertWorker(Options options)
    : options_(std::move(options)),
      registry_(metrics::Registry::Create()),
      metrics_(registry_.get()),
      engine_(HoldingsOf(options_)),
      queue_({.engine = &engine_,
              .hidden_size = options_.identity.hidden_size,
              .max_bytes = options_.max_queue_bytes,
              .max_batch_outputs = options_.max_batch_outputs,
              .buffers = buffers_,
              .metrics = &metrics_}),
      service_(Completed(options_.connection, &metrics_, buffers_)) {
  grpc::Service* const services[] = {service_.grpc_service()};
  absl::StatusOr<std::unique_ptr<rpc::Server>> server;
  // A port that was in use a moment ago may need one.
  const absl::Time deadline = absl::Now() + absl::Seconds(20);
  do {
    server = rpc::Server::Start(options_.host, options_.port, services,
                                /*num_queues=*/1);
  } while (!server.ok() && absl::Now() < deadline);
  SY_CHECK(server.ok());
  server_ = *std::move(server);
  service_.Start(server_->completion_queue(0));
  if (options_.serving) SetServing();
}

std::string FakeExpertWorker::address() const {
  return rpc::ListeningAddress(options_.host, port());
}

void FakeExpertWorker::SetServing() {
  service_.SetServing({.identity = options_.identity,
                       .holdings = engine_.holdings(),
                       .queue = &queue_});
}

void FakeExpertWorker::Kill() {
  server_->Shutdown(absl::ZeroDuration());
  // The thread that computes is one of the service's.
  engine_.Release();
  service_.Stop();
}

}  // namespace switchyard::testing
