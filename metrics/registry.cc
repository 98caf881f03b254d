#include "metrics/registry.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/mutex.h"
#include "prometheus/check_names.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "prometheus/text_serializer.h"

namespace switchyard::metrics {
namespace {

// Letters, digits and underscores; not what Prometheus keeps for itself.
// prometheus-cpp has such a check, with other arguments in each release.
bool IsLabelName(absl::string_view name) {
  if (name.empty() || absl::ascii_isdigit(name[0])) return false;
  if (absl::StartsWith(name, "__") || name == "le") return false;
  return absl::c_all_of(
      name, [](unsigned char c) { return absl::ascii_isalnum(c) || c == '_'; });
}

class CounterHandle final : public Counter {
 public:
  explicit CounterHandle(prometheus::Counter* counter) : counter_(counter) {}
  void Increment(double by) override { counter_->Increment(by); }
  double value() const override { return counter_->Value(); }

 private:
  prometheus::Counter* const counter_;
};

class GaugeHandle final : public Gauge {
 public:
  explicit GaugeHandle(prometheus::Gauge* gauge) : gauge_(gauge) {}
  void Set(double value) override { gauge_->Set(value); }
  void Add(double by) override { gauge_->Increment(by); }
  double value() const override { return gauge_->Value(); }

 private:
  prometheus::Gauge* const gauge_;
};

class HistogramHandle final : public Histogram {
 public:
  explicit HistogramHandle(prometheus::Histogram* histogram)
      : histogram_(histogram) {}
  void Observe(double value) override { histogram_->Observe(value); }
  uint64_t count() const override {
    return histogram_->Collect().histogram.sample_count;
  }

 private:
  prometheus::Histogram* const histogram_;
};

// All metrics of one name. One of the three families is set: the name's kind.
struct Family {
  std::string help;
  std::vector<double> buckets;  // of a histogram
  prometheus::Family<prometheus::Counter>* counters = nullptr;
  prometheus::Family<prometheus::Gauge>* gauges = nullptr;
  prometheus::Family<prometheus::Histogram>* histograms = nullptr;
  // The handle of each set of labels; the one of the family's kind is set.
  std::map<Labels, std::unique_ptr<Counter>> counter_handles;
  std::map<Labels, std::unique_ptr<Gauge>> gauge_handles;
  std::map<Labels, std::unique_ptr<Histogram>> histogram_handles;
};

class PrometheusRegistry final : public Registry {
 public:
  Counter* AddCounter(const std::string& name, const std::string& help,
                      const Labels& labels) override {
    SY_CHECK(absl::EndsWith(name, "_total"));
    CheckLabels(labels);
    MutexLock lock(&mutex_);
    Family& family = FindFamily(name, help);
    if (family.counters == nullptr) {
      SY_CHECK(family.gauges == nullptr && family.histograms == nullptr);
      family.counters =
          &prometheus::BuildCounter().Name(name).Help(help).Register(registry_);
    }
    std::unique_ptr<Counter>& handle = family.counter_handles[labels];
    if (handle == nullptr) {
      handle = std::make_unique<CounterHandle>(&family.counters->Add(labels));
    }
    return handle.get();
  }

  Gauge* AddGauge(const std::string& name, const std::string& help,
                  const Labels& labels) override {
    CheckLabels(labels);
    MutexLock lock(&mutex_);
    Family& family = FindFamily(name, help);
    if (family.gauges == nullptr) {
      SY_CHECK(family.counters == nullptr && family.histograms == nullptr);
      family.gauges =
          &prometheus::BuildGauge().Name(name).Help(help).Register(registry_);
    }
    std::unique_ptr<Gauge>& handle = family.gauge_handles[labels];
    if (handle == nullptr) {
      handle = std::make_unique<GaugeHandle>(&family.gauges->Add(labels));
    }
    return handle.get();
  }

  Histogram* AddHistogram(const std::string& name, const std::string& help,
                          const std::vector<double>& buckets,
                          const Labels& labels) override {
    SY_CHECK(!buckets.empty());
    SY_CHECK(std::is_sorted(buckets.begin(), buckets.end(),
                            std::less_equal<double>()));  // strictly
    CheckLabels(labels);
    MutexLock lock(&mutex_);
    Family& family = FindFamily(name, help);
    if (family.histograms == nullptr) {
      SY_CHECK(family.counters == nullptr && family.gauges == nullptr);
      family.histograms =
          &prometheus::BuildHistogram().Name(name).Help(help).Register(
              registry_);
      family.buckets = buckets;
    }
    SY_CHECK(family.buckets == buckets);
    std::unique_ptr<Histogram>& handle = family.histogram_handles[labels];
    if (handle == nullptr) {
      handle = std::make_unique<HistogramHandle>(
          &family.histograms->Add(labels, buckets));
    }
    return handle.get();
  }

  void AddCollector(std::function<void()> collector) override {
    MutexLock lock(&expose_mutex_);
    collectors_.push_back(std::move(collector));
  }

  void Include(Registry* other) override {
    // Registries are made by Registry::Create alone.
    auto* const included = static_cast<PrometheusRegistry*>(other);
    MutexLock lock(&expose_mutex_);
    included_.push_back(included);
  }

  std::string Expose() override {
    std::vector<prometheus::MetricFamily> families = Collect();
    std::vector<PrometheusRegistry*> others;
    {
      MutexLock lock(&expose_mutex_);
      others = included_;
    }
    std::set<std::string> names;
    for (const prometheus::MetricFamily& family : families) {
      names.insert(family.name);
    }
    for (PrometheusRegistry* other : others) {
      for (prometheus::MetricFamily& family : other->Collect()) {
        if (!names.insert(family.name).second) continue;
        families.push_back(std::move(family));
      }
    }
    std::ostringstream text;
    prometheus::TextSerializer().Serialize(text, families);
    return std::move(text).str();
  }

 private:
  std::vector<prometheus::MetricFamily> Collect()
      ABSL_LOCKS_EXCLUDED(expose_mutex_) {
    {
      MutexLock lock(&expose_mutex_);
      for (const auto& collector : collectors_) collector();
    }
    return registry_.Collect();
  }

  static void CheckLabels(const Labels& labels) {
    for (const auto& [name, value] : labels) SY_CHECK(IsLabelName(name));
  }

  Family& FindFamily(const std::string& name, const std::string& help)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    SY_CHECK(prometheus::CheckMetricName(name));
    // prometheus-cpp 1.0 prints them as they are, which breaks the format.
    SY_CHECK(help.find_first_of("\n\\") == std::string::npos);
    const auto [it, added] = families_.try_emplace(name);
    if (added) it->second.help = help;
    SY_CHECK(it->second.help == help);
    return it->second;
  }

  prometheus::Registry registry_;
  Mutex mutex_;
  std::map<std::string, Family> families_ ABSL_GUARDED_BY(mutex_);
  // Collectors run one after the other, and may add metrics.
  Mutex expose_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  std::vector<std::function<void()>> collectors_ ABSL_GUARDED_BY(expose_mutex_);
  std::vector<PrometheusRegistry*> included_ ABSL_GUARDED_BY(expose_mutex_);
};

}  // namespace

std::unique_ptr<Registry> Registry::Create() {
  return std::make_unique<PrometheusRegistry>();
}

}  // namespace switchyard::metrics
