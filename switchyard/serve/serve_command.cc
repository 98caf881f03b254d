#include "switchyard/serve/serve_command.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attention_worker/worker.h"
#include "base/cpu_set.h"
#include "base/log.h"
#include "base/serve_until_signal.h"
#include "base/shutdown_signal.h"
#include "base/status_macros.h"
#include "kernels/amx_kernels.h"
#include "kernels/kernel_table.h"
#include "metrics/registry.h"
#include "model/weight_copies.h"
#include "router/server.h"
#include "switchyard/serve/local_attention_client.h"
#include "tracing/client/otlp_exporter.h"
#include "tracing/span/trace_context.h"

namespace switchyard {
namespace {

using attention_worker::AttentionWorker;
using router::RouterServer;

absl::StatusOr<AttentionWorker::Options> WorkerOptions(
    const ServeOptions& options, metrics::Registry* registry) {
  AttentionWorker::Options worker;
  worker.model_dir = options.router.model_dir;
  worker.threads = options.threads;
  SY_ASSIGN_OR_RETURN(worker.cpus, ParseCpuList(options.cpus));
  SY_ASSIGN_OR_RETURN(worker.weights,
                      model::ParseWeightPlacement(options.weights));
  SY_ASSIGN_OR_RETURN(worker.activations,
                      model::ParseActivations(options.activations));
  SY_ASSIGN_OR_RETURN(
      worker.kv_cache_dtype,
      attention_worker::ParseKvCacheDType(options.kv_cache_dtype));
  worker.max_model_len = options.router.context_length;
  worker.state_memory_bytes = options.state_memory_bytes;
  worker.experts_memory_bytes = options.experts_memory_bytes;
  worker.max_running_requests = options.max_running_requests;
  worker.max_queued_requests = options.router.max_open_requests;
  worker.chunked_prefill_size = options.chunked_prefill_size;
  worker.prefix_caching = options.prefix_caching;
  worker.snapshot_dir = options.snapshot_dir;
  worker.snapshot_dir_bytes = options.snapshot_dir_bytes;
  worker.speculative = options.speculative;
  worker.verify_checksums = options.verify_checksums;
  worker.model_name = options.router.served_model_name;
  worker.registry = registry;
  worker.on_loaded = [](const absl::Status& status) {
    if (!status.ok()) RequestShutdown();  // WaitUntilLoaded() has the reason
  };
  return worker;
}

}  // namespace

absl::Status RunServe(const ServeOptions& options) {
  BlockShutdownSignals();
  SY_RETURN_IF_ERROR(kernels::SelectKernels(options.isa));
  LogInfo(absl::StrCat("kernels: ", kernels::DescribeKernels()));
  const std::unique_ptr<metrics::Registry> worker_registry =
      metrics::Registry::Create();
  const std::unique_ptr<metrics::Registry> router_registry =
      metrics::Registry::Create();
  router_registry->Include(worker_registry.get());

  std::unique_ptr<tracing::SpanSink> spans;
  RouterServer::Options router_options = options.router;
  if (const std::string& endpoint = router_options.otlp_traces_endpoint;
      !endpoint.empty()) {
    SY_ASSIGN_OR_RETURN(
        spans, tracing::NewOtlpExporter({.endpoint = endpoint,
                                         .service_name = "switchyard",
                                         .instance_id = absl::StrCat(
                                             absl::Hex(tracing::RandomBits())),
                                         .registry = router_registry.get()}));
  }

  SY_ASSIGN_OR_RETURN(AttentionWorker::Options worker_options,
                      WorkerOptions(options, worker_registry.get()));
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<AttentionWorker> worker,
                      AttentionWorker::Create(std::move(worker_options)));
  router_options.spans = spans.get();
  router_options.workers = {NewLocalAttentionClient(worker.get(), spans.get())};
  router_options.registry = router_registry.get();
  const char* const scheme =
      router_options.certificate_file.empty() ? "http" : "https";
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<RouterServer> router,
                      RouterServer::Start(std::move(router_options)));
  worker->StartLoading();
  LogInfo(absl::StrCat("serving ", router->served_model_name(), " on ", scheme,
                       "://", options.router.host, ":", router->port()));

  return ServeUntilSignal(
      {.load_status =
           [&] { return worker->WaitUntilLoaded(absl::InfinitePast()); },
       .drain =
           [&] {
             router->Shutdown(options.drain_timeout);
             worker->Stop();
           }});
}

}  // namespace switchyard
