#include "expert_worker/placement/holdings_keeper.h"

#include <algorithm>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/log.h"
#include "base/thread.h"

namespace switchyard::expert_worker {
namespace {

using Pair = experts::ExpertEngine::Pair;

// Looks at the time so often: the lost, newcomers, withdrawn experts.
constexpr absl::Duration kTick = absl::Milliseconds(50);

}  // namespace

HoldingsKeeper::Metrics::Metrics(metrics::Registry* registry)
    : epoch(registry->AddGauge("switchyard_expert_placement_epoch",
                               "Placements of experts that this worker has "
                               "seen since it began.")),
      under_replicated(registry->AddGauge(
          "switchyard_experts_under_replicated",
          "(layer, expert) pairs that fewer live workers hold than should, as "
          "this worker sees it.")),
      pending(registry->AddGauge(
          "switchyard_expert_loads_pending",
          "(layer, expert) pairs that this worker has yet to load.")),
      wanted(registry->AddGauge(
          "switchyard_expert_wanted_experts",
          "(layer, expert) pairs that this worker should hold.")),
      first_benefit_seconds(registry->AddGauge(
          "switchyard_expert_first_benefit_seconds",
          "From the first view of the members to the first expert served.")),
      loaded_bytes(registry->AddCounter(
          "switchyard_expert_rebalance_loaded_bytes_total",
          "Bytes of experts that were loaded for the placement.")),
      hot_copy_bytes(registry->AddCounter(
          "switchyard_expert_hot_copy_bytes_total",
          "Of them, those of further copies of hot experts.")),
      dropped_bytes(registry->AddCounter(
          "switchyard_expert_rebalance_dropped_bytes_total",
          "Bytes of experts that were let go for the placement.")),
      failed_loads(registry->AddCounter(
          "switchyard_expert_failed_loads_total",
          "Experts that could not be loaded, or were found damaged.")),
      resident_bytes(registry->AddGauge("switchyard_expert_resident_bytes",
                                        "Bytes of weights of held experts.")),
      held(registry->AddGauge("switchyard_expert_held_experts",
                              "(layer, expert) pairs that are held.")) {}

HoldingsKeeper::HoldingsKeeper(Options options)
    : options_(std::move(options)),
      metrics_(options_.registry),
      planner_(options_.plan),
      advertised_(options_.plan.experts.num_layers(),
                  options_.plan.experts.num_experts()),
      hot_copies_(options_.hot_copy_bytes_per_minute, options_.clock->Now()) {
  SY_CHECK(options_.engine != nullptr && options_.pool != nullptr);
  thread_ = StartThread("expert-place", [this] { Run(); });
}

HoldingsKeeper::~HoldingsKeeper() { Stop(); }

void HoldingsKeeper::Stop() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void HoldingsKeeper::Wake() {
  MutexLock lock(&mutex_);
  woken_ = true;
  changed_.SignalAll();
}

bool HoldingsKeeper::Drain(absl::Time deadline) {
  MutexLock lock(&mutex_);
  draining_ = true;
  changed_.SignalAll();
  while (!drained_ && absl::Now() < deadline) {
    changed_.WaitUntil(&mutex_, deadline);
  }
  return drained_;
}

void HoldingsKeeper::Run() {
  while (true) {
    bool draining = false;
    bool view_changed = false;
    {
      MutexLock lock(&mutex_);
      if (stopping_) return;
      view_changed = std::exchange(woken_, false);
      draining = draining_;
    }
    const bool more = Step(draining, view_changed);
    MutexLock lock(&mutex_);
    if (draining && advertised_.empty() && !drained_) {
      drained_ = true;
      changed_.SignalAll();
    }
    const absl::Time next = absl::Now() + kTick;
    while (!more && !woken_ && !stopping_ && draining == draining_ &&
           absl::Now() < next) {
      changed_.WaitUntil(&mutex_, next);
    }
  }
}

bool HoldingsKeeper::Step(bool draining, bool view_changed) {
  const absl::Time now = options_.clock->Now();
  FreeWithdrawn(now);
  if (!view_changed && !look_again_ && !draining) return false;
  const HoldingsPlan plan =
      planner_.Plan(*options_.view(), advertised_, draining, now);
  look_again_ = plan.waits || !plan.load.empty();
  if (!plan.ready) return false;
  if (ready_since_ == absl::InfiniteFuture()) ready_since_ = now;
  metrics_.epoch->Set(static_cast<double>(plan.epoch));
  metrics_.under_replicated->Set(static_cast<double>(plan.under_replicated));
  metrics_.pending->Set(static_cast<double>(plan.load.size()));
  metrics_.wanted->Set(static_cast<double>(plan.wanted));
  if (!plan.withdraw.empty()) {
    for (const Pair& pair : plan.withdraw) {
      advertised_.Erase(pair.layer, pair.expert);
      withdrawn_.emplace(Key(pair.layer, pair.expert), now);
    }
    Advertise();
  }
  if (draining) return false;
  if (!completed_ && plan.load.empty() && plan.wanted > 0) {
    completed_ = true;
    LogInfo(absl::StrCat("holds its share of the experts, ", plan.wanted, ", ",
                         options_.engine->resident_bytes() >> 20,
                         " MiB, after ",
                         absl::FormatDuration(absl::Trunc(
                             now - ready_since_, absl::Milliseconds(1)))));
    if (options_.on_complete) options_.on_complete();
  }
  return LoadBatch(plan, now);
}

bool HoldingsKeeper::LoadBatch(const HoldingsPlan& plan, absl::Time now) {
  const int64_t expert_bytes =
      std::max<int64_t>(1, options_.engine->expert_bytes());
  const auto most = static_cast<size_t>(std::clamp<int64_t>(
      options_.max_batch_bytes / expert_bytes, 1, options_.max_batch_experts));
  int64_t room = options_.room - advertised_.size() -
                 static_cast<int64_t>(withdrawn_.size());
  bool changed = false;
  std::vector<Pair> batch;
  std::set<Key> hot_copies;
  for (size_t i = 0; i < plan.load.size() && batch.size() < most; ++i) {
    const Pair pair = plan.load[i];
    const Key key(pair.layer, pair.expert);
    if (withdrawn_.erase(key) > 0) {  // still here: it was wanted again
      advertised_.Insert(pair.layer, pair.expert);
      changed = true;
      continue;
    }
    const auto failed = failed_.find(key);
    if (failed != failed_.end()) {
      if (now < failed->second) continue;
      failed_.erase(failed);
    }
    if (room <= 0) break;
    if (i >= plan.first_extra) {
      if (!hot_copies_.Take(expert_bytes, now)) break;
      hot_copies.insert(key);
    }
    --room;
    batch.push_back(pair);
  }
  if (batch.empty()) {
    if (changed) Advertise();
    return changed;
  }
  const std::vector<absl::Status> statuses =
      options_.engine->Load(batch, options_.pool);
  for (size_t i = 0; i < batch.size(); ++i) {
    if (statuses[i].ok()) {
      advertised_.Insert(batch[i].layer, batch[i].expert);
      metrics_.loaded_bytes->Increment(static_cast<double>(expert_bytes));
      if (hot_copies.contains(Key(batch[i].layer, batch[i].expert))) {
        metrics_.hot_copy_bytes->Increment(static_cast<double>(expert_bytes));
      }
      changed = true;
      continue;
    }
    LogError(absl::StrCat("cannot load expert ", batch[i].expert, " of layer ",
                          batch[i].layer, ": ", statuses[i].ToString()));
    metrics_.failed_loads->Increment();
    failed_[Key(batch[i].layer, batch[i].expert)] = now + options_.retry_time;
  }
  if (changed) {
    Advertise();
    if (metrics_.first_benefit_seconds->value() == 0) {
      metrics_.first_benefit_seconds->Set(
          absl::ToDoubleSeconds(options_.clock->Now() - ready_since_));
    }
  }
  return true;
}

void HoldingsKeeper::FreeWithdrawn(absl::Time now) {
  for (auto it = withdrawn_.begin(); it != withdrawn_.end();) {
    const auto& [layer, expert] = it->first;
    if (now - it->second < options_.withdrawn_time ||
        options_.in_use(layer, expert)) {
      ++it;
      continue;
    }
    options_.engine->Drop({layer, expert});
    metrics_.dropped_bytes->Increment(
        static_cast<double>(options_.engine->expert_bytes()));
    it = withdrawn_.erase(it);
  }
  metrics_.resident_bytes->Set(
      static_cast<double>(options_.engine->resident_bytes()));
}

void HoldingsKeeper::Advertise() {
  metrics_.held->Set(static_cast<double>(advertised_.size()));
  options_.advertise(advertised_);
}

}  // namespace switchyard::expert_worker
