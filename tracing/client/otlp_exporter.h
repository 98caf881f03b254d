// Sends spans to an OpenTelemetry collector (OTLP over gRPC).

#ifndef SWITCHYARD_TRACING_CLIENT_OTLP_EXPORTER_H_
#define SWITCHYARD_TRACING_CLIENT_OTLP_EXPORTER_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "metrics/registry.h"
#include "tracing/span/span.h"

namespace switchyard::tracing {

struct OtlpExporterOptions {
  std::string endpoint = "";  // host:port, or http://host:port; 4317 by custom
  std::string service_name = "";  // "switchyard-router", ...
  std::string instance_id = "";
  metrics::Registry* registry = nullptr;  // not owned; outlives the exporter
  size_t max_queued_spans = 4096;         // beyond: dropped
  size_t max_batch_spans = 512;
  absl::Duration interval = absl::Seconds(1);  // between two batches
  absl::Duration timeout = absl::Seconds(5);   // of one
};

// A thread of its own ("traces") sends; a batch that fails is dropped and
// counted, for traces are worth no memory and no waiting. The destructor sends
// what is left, within `timeout`. Collectors are spoken to in the clear: they
// are on the same host or network.
// INVALID_ARGUMENT: the endpoint is no address.
absl::StatusOr<std::unique_ptr<SpanSink>> NewOtlpExporter(
    OtlpExporterOptions options);

}  // namespace switchyard::tracing

#endif  // SWITCHYARD_TRACING_CLIENT_OTLP_EXPORTER_H_
