// Prometheus metrics: the only folder that sees prometheus/.
//
// Handles are made once at start, in a server's composition root, and passed
// down; nothing looks a metric up by name while serving.

#ifndef SWITCHYARD_METRICS_REGISTRY_H_
#define SWITCHYARD_METRICS_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard::metrics {

using Labels = std::map<std::string, std::string>;

// Handles: cheap, thread-safe, owned by the registry that made them.
class Counter {
 public:
  virtual ~Counter() = default;
  virtual void Increment(double by = 1) = 0;
  virtual double value() const = 0;
};
class Gauge {
 public:
  virtual ~Gauge() = default;
  virtual void Set(double value) = 0;
  virtual void Add(double by) = 0;
  virtual double value() const = 0;
};
class Histogram {
 public:
  virtual ~Histogram() = default;
  virtual void Observe(double value) = 0;
  virtual uint64_t count() const = 0;
};

// Bucket edges in seconds, as vLLM's (reference/SERVING.md 2.1).
std::vector<double> TimeToFirstTokenBuckets();
std::vector<double> InterTokenBuckets();
std::vector<double> RequestSecondsBuckets();
// 1 us to 10 s: dispatches, queues, steps.
std::vector<double> ShortSecondsBuckets();
// 1-2-5 decades up to `max`.
std::vector<double> TokenCountBuckets(double max);

// Thread-safe. The same name and labels give the same handle; the same name
// must come with the same kind and help. Counters' names end in _total; base
// units (seconds, bytes) are in the name.
class Registry {
 public:
  static std::unique_ptr<Registry> Create();
  virtual ~Registry() = default;

  virtual Counter* AddCounter(const std::string& name, const std::string& help,
                              const Labels& labels = {}) = 0;
  virtual Gauge* AddGauge(const std::string& name, const std::string& help,
                          const Labels& labels = {}) = 0;
  virtual Histogram* AddHistogram(const std::string& name,
                                  const std::string& help,
                                  const std::vector<double>& buckets,
                                  const Labels& labels = {}) = 0;

  // Called before each exposition, to refresh gauges.
  virtual void AddCollector(std::function<void()> collector) = 0;

  // From now on Expose() also gives the families of `other` whose names are not
  // among this registry's own: two services in one process have one /metrics,
  // in which the front service's word counts. `other` is not owned, outlives
  // this, and includes nothing itself.
  virtual void Include(Registry* other) = 0;

  // Prometheus text format 0.0.4.
  virtual std::string Expose() = 0;
};

// Also gives process_* metrics (CPU, RSS, open files, start time) and
// switchyard_build_info{version,service}.
void AddProcessMetrics(Registry* registry, const std::string& service);

// Serves /metrics, /livez and /readyz over HTTP on its own port, for services
// without an HTTP front.
class MetricsServer {
 public:
  struct Readiness {
    bool ready = false;
    std::string body;  // JSON
  };
  // port 0 picks a free one. UNAVAILABLE: the port is in use (names it).
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(
      const std::string& host, int port, Registry* registry,
      std::function<Readiness()> readiness);
  virtual ~MetricsServer() = default;
  virtual int port() const = 0;
};

}  // namespace switchyard::metrics

#endif  // SWITCHYARD_METRICS_REGISTRY_H_
