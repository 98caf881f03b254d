// Metrics without Prometheus: a world is made thousands of times a second.

#ifndef SWITCHYARD_TESTS_SIMULATION_PLAIN_REGISTRY_H_
#define SWITCHYARD_TESTS_SIMULATION_PLAIN_REGISTRY_H_

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "metrics/registry.h"

namespace switchyard::simulation {

// The same name and labels give the same handle. Exposes nothing. One thread.
class PlainRegistry final : public metrics::Registry {
 public:
  metrics::Counter* AddCounter(const std::string& name, const std::string& help,
                               const metrics::Labels& labels = {}) override {
    return Add<PlainCounter>(&counters_, name, labels);
  }
  metrics::Gauge* AddGauge(const std::string& name, const std::string& help,
                           const metrics::Labels& labels = {}) override {
    return Add<PlainGauge>(&gauges_, name, labels);
  }
  metrics::Histogram* AddHistogram(
      const std::string& name, const std::string& help,
      const std::vector<double>& buckets,
      const metrics::Labels& labels = {}) override {
    return Add<PlainHistogram>(&histograms_, name, labels);
  }
  void AddCollector(std::function<void()> collector) override {}
  void Include(metrics::Registry* other) override {}
  std::string Expose() override { return ""; }

 private:
  class PlainCounter final : public metrics::Counter {
   public:
    void Increment(double by) override { value_ += by; }
    double value() const override { return value_; }

   private:
    double value_ = 0;
  };
  class PlainGauge final : public metrics::Gauge {
   public:
    void Set(double value) override { value_ = value; }
    void Add(double by) override { value_ += by; }
    double value() const override { return value_; }

   private:
    double value_ = 0;
  };
  class PlainHistogram final : public metrics::Histogram {
   public:
    void Observe(double value) override { ++count_; }
    uint64_t count() const override { return count_; }

   private:
    uint64_t count_ = 0;
  };
  template <typename T>
  using Map = std::unordered_map<std::string, std::unique_ptr<T>>;

  template <typename T>
  static T* Add(Map<T>* map, const std::string& name,
                const metrics::Labels& labels) {
    std::string key = name;
    for (const auto& [label, value] : labels) {
      key.append(1, '|').append(label).append(1, '=').append(value);
    }
    std::unique_ptr<T>& slot = (*map)[key];
    if (slot == nullptr) slot = std::make_unique<T>();
    return slot.get();
  }

  Map<PlainCounter> counters_;
  Map<PlainGauge> gauges_;
  Map<PlainHistogram> histograms_;
};

}  // namespace switchyard::simulation

#endif  // SWITCHYARD_TESTS_SIMULATION_PLAIN_REGISTRY_H_
