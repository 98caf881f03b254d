#include "metrics/registry.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "metrics/series_lease.h"
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

  prometheus::Counter* series() const { return counter_; }

 private:
  prometheus::Counter* const counter_;
};

class GaugeHandle final : public Gauge {
 public:
  explicit GaugeHandle(prometheus::Gauge* gauge) : gauge_(gauge) {}
  void Set(double value) override { gauge_->Set(value); }
  void Add(double by) override { gauge_->Increment(by); }
  double value() const override { return gauge_->Value(); }

  prometheus::Gauge* series() const { return gauge_; }

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

  prometheus::Histogram* series() const { return histogram_; }

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

// Who holds leases of what. Leases share it with the registry, so that it does
// not matter who goes first. Thread-safe.
class LeaseBook {
 public:
  // A label's name and its value.
  using LabelValue = std::pair<std::string, std::string>;

  // Series are forgotten from now on; null: no more.
  void SetClock(const Clock* clock, absl::Duration after)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    clock_ = clock;
    after_ = after;
  }

  void Begin(const LabelValue& series) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    ++uses_[series].leases;
  }

  void End(const LabelValue& series) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    Use& use = uses_.at(series);
    if (--use.leases == 0 && clock_ != nullptr) use.ended = clock_->Now();
  }

  // What nobody has used for long enough; it is not in the book any more.
  std::vector<LabelValue> TakeUnused() ABSL_LOCKS_EXCLUDED(mutex_) {
    std::vector<LabelValue> unused;
    MutexLock lock(&mutex_);
    if (clock_ == nullptr) return unused;
    const absl::Time now = clock_->Now();
    for (auto it = uses_.begin(); it != uses_.end();) {
      if (it->second.leases > 0 || now - it->second.ended < after_) {
        ++it;
        continue;
      }
      unused.push_back(it->first);
      it = uses_.erase(it);
    }
    return unused;
  }

 private:
  struct Use {
    int leases = 0;
    absl::Time ended;  // the last of them
  };

  Mutex mutex_;
  std::map<LabelValue, Use> uses_ ABSL_GUARDED_BY(mutex_);
  const Clock* clock_ ABSL_GUARDED_BY(mutex_) = nullptr;
  absl::Duration after_ ABSL_GUARDED_BY(mutex_);
};

class PrometheusRegistry final : public Registry {
 public:
  ~PrometheusRegistry() override {
    leases_->SetClock(nullptr, absl::ZeroDuration());
  }

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

  SeriesLease Lease(const std::string& label, const std::string& value)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    const LeaseBook::LabelValue series = {label, value};
    MutexLock lock(&mutex_);
    // Who comes back too late begins anew, whether somebody looked or not.
    ForgetUnused();
    leases_->Begin(series);
    // It is only counted: there is nothing to point to but the book.
    return SeriesLease(leases_.get(), [book = leases_, series](const void*) {
      book->End(series);
    });
  }

  void ForgetAfter(const Clock* clock, absl::Duration after) {
    leases_->SetClock(clock, after);
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
    {
      MutexLock lock(&mutex_);
      ForgetUnused();
    }
    return registry_.Collect();
  }

  void ForgetUnused() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (const LeaseBook::LabelValue& unused : leases_->TakeUnused()) {
      for (auto& [name, family] : families_) {
        RemoveSeries<CounterHandle>(unused, family.counters,
                                    &family.counter_handles);
        RemoveSeries<GaugeHandle>(unused, family.gauges, &family.gauge_handles);
        RemoveSeries<HistogramHandle>(unused, family.histograms,
                                      &family.histogram_handles);
      }
    }
  }

  template <typename Handle, typename Series, typename Handles>
  static void RemoveSeries(const LeaseBook::LabelValue& label,
                           prometheus::Family<Series>* family,
                           Handles* handles) {
    for (auto it = handles->begin(); it != handles->end();) {
      const auto found = it->first.find(label.first);
      if (found == it->first.end() || found->second != label.second) {
        ++it;
        continue;
      }
      family->Remove(static_cast<const Handle&>(*it->second).series());
      it = handles->erase(it);
    }
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
  const std::shared_ptr<LeaseBook> leases_ = std::make_shared<LeaseBook>();
  // Collectors run one after the other, and may add metrics.
  Mutex expose_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  std::vector<std::function<void()>> collectors_ ABSL_GUARDED_BY(expose_mutex_);
  std::vector<PrometheusRegistry*> included_ ABSL_GUARDED_BY(expose_mutex_);
};

}  // namespace

std::unique_ptr<Registry> Registry::Create() {
  return std::make_unique<PrometheusRegistry>();
}

SeriesLease LeaseSeries(Registry* registry, const std::string& label,
                        const std::string& value) {
  auto* const forgetful = dynamic_cast<PrometheusRegistry*>(registry);
  return forgetful == nullptr ? nullptr : forgetful->Lease(label, value);
}

void ForgetUnleasedSeries(Registry* registry, const Clock* clock,
                          absl::Duration after) {
  if (auto* const forgetful = dynamic_cast<PrometheusRegistry*>(registry)) {
    forgetful->ForgetAfter(clock, after);
  }
}

}  // namespace switchyard::metrics
