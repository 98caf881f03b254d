#include "router/routing/worker_pool.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "base/log.h"

namespace switchyard::router {
namespace {

// Empty if it is.
std::string WhyNotReady(const AttentionWorkerInfo& info) {
  const auto with_message = [&](absl::string_view text) {
    return info.message.empty() ? std::string(text)
                                : absl::StrCat(text, " (", info.message, ")");
  };
  switch (info.state) {
    case AttentionWorkerInfo::State::kReady:
      return "";
    case AttentionWorkerInfo::State::kUnreachable:
      return with_message("unreachable");
    case AttentionWorkerInfo::State::kLoading:
      return with_message(absl::StrCat(
          "loading, ", static_cast<int>(info.loading_progress * 100), "%"));
    case AttentionWorkerInfo::State::kWaitingExperts:
      return with_message("waiting for experts");
    case AttentionWorkerInfo::State::kDraining:
      return with_message("draining");
  }
  return "in a state that this router does not know";
}

std::string Reasons(const std::vector<WorkerPool::WorkerStatus>& all) {
  return absl::StrJoin(
      all, "; ", [](std::string* out, const WorkerPool::WorkerStatus& worker) {
        absl::StrAppend(out, worker.name, ": ", worker.not_ready);
      });
}

}  // namespace

WorkerLease::WorkerLease(WorkerLease&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      place_(other.place_),
      worker_(other.worker_) {}

WorkerLease& WorkerLease::operator=(WorkerLease&& other) noexcept {
  if (this == &other) return *this;
  Release();
  pool_ = std::exchange(other.pool_, nullptr);
  place_ = other.place_;
  worker_ = other.worker_;
  return *this;
}

WorkerLease::~WorkerLease() { Release(); }

void WorkerLease::Release() {
  if (pool_ == nullptr) return;
  MutexLock lock(&pool_->mutex_);
  const auto found = pool_->places_.find(place_);
  SY_CHECK(found != pool_->places_.end() && found->second.in_flight > 0);
  --found->second.in_flight;
  pool_ = nullptr;
}

WorkerPool::WorkerPool(std::vector<AttentionClient*> workers,
                       const RoutingPolicy* policy, Options options)
    : policy_(policy), options_(std::move(options)) {
  SY_CHECK(policy_ != nullptr);
  MutexLock lock(&mutex_);
  for (AttentionClient* worker : workers) {
    places_[next_place_++].worker = worker;
  }
}

bool WorkerPool::Add(std::shared_ptr<AttentionClient> worker) {
  MutexLock lock(&mutex_);
  const std::string name = worker->name();
  for (const auto& [number, place] : places_) {
    if (!place.removed && place.worker->name() == name) return false;
  }
  Place& place = places_[next_place_++];
  place.worker = worker.get();
  place.owned = std::move(worker);
  return true;
}

bool WorkerPool::Remove(absl::string_view name) {
  MutexLock lock(&mutex_);
  DescribeLocked();  // for the last time with it
  for (auto& [number, place] : places_) {
    if (place.owned == nullptr || place.removed ||
        absl::string_view(place.worker->name()) != name) {
      continue;
    }
    place.removed = true;
    return true;
  }
  return false;
}

bool WorkerPool::AskNow(absl::string_view name) {
  MutexLock lock(&mutex_);
  for (const auto& [number, place] : places_) {
    if (place.removed || absl::string_view(place.worker->name()) != name) {
      continue;
    }
    place.worker->AskNow();
    return true;
  }
  return false;
}

std::vector<std::shared_ptr<AttentionClient>> WorkerPool::TakeRemoved() {
  std::vector<std::shared_ptr<AttentionClient>> taken;
  MutexLock lock(&mutex_);
  for (auto it = places_.begin(); it != places_.end();) {
    if (!it->second.removed || it->second.in_flight > 0) {
      ++it;
      continue;
    }
    taken.push_back(std::move(it->second.owned));
    it = places_.erase(it);
  }
  return taken;
}

std::vector<WorkerLease> WorkerPool::LeaseAll() {
  MutexLock lock(&mutex_);
  std::vector<WorkerLease> leases;
  for (auto& [number, place] : places_) {
    if (place.removed) continue;
    ++place.in_flight;
    leases.push_back(WorkerLease(this, number, place.worker));
  }
  return leases;
}

absl::StatusOr<WorkerLease> WorkerPool::Choose(
    absl::Span<const std::string> exclude) {
  MutexLock lock(&mutex_);
  std::vector<uint64_t> places;
  std::vector<WorkerStatus> all = DescribeLocked(&places);
  for (WorkerStatus& worker : all) {
    if (!absl::c_linear_search(exclude, worker.name)) continue;
    if (worker.not_ready.empty()) {
      worker.not_ready = "failed this request already";
    }
    worker.can_wait = false;
  }
  const bool any_ready = absl::c_any_of(
      all, [](const WorkerStatus& worker) { return worker.not_ready.empty(); });
  std::vector<RoutingCandidate> candidates;
  std::vector<size_t> indices;
  for (size_t i = 0; i < all.size(); ++i) {
    if (any_ready ? !all[i].not_ready.empty() : !all[i].can_wait) continue;
    const AttentionWorkerInfo& info = all[i].info;
    candidates.push_back(
        {.name = all[i].name,
         .load = std::max(info.running_requests + info.waiting_requests,
                          all[i].in_flight)});
    indices.push_back(i);
  }
  if (all.empty()) {
    return absl::UnavailableError(
        "no attention worker has joined this router yet");
  }
  if (candidates.empty()) {
    return absl::UnavailableError(absl::StrCat(
        "no attention worker can take the request: ", Reasons(all)));
  }
  const size_t choice = policy_->Choose(candidates, turn_++);
  SY_CHECK(choice < candidates.size());
  const uint64_t number = places[indices[choice]];
  Place& place = places_[number];
  ++place.in_flight;
  return WorkerLease(this, number, place.worker);
}

absl::Time WorkerPool::ExpectedBackBy() {
  MutexLock lock(&mutex_);
  DescribeLocked();
  if (options_.worker_grace <= absl::ZeroDuration()) {
    return absl::InfinitePast();
  }
  return last_choosable_ + options_.worker_grace;
}

WorkerPool::ServedModel WorkerPool::served_model() {
  MutexLock lock(&mutex_);
  DescribeLocked();
  return {.fingerprint = fingerprint_, .max_model_len = max_model_len_};
}

std::vector<WorkerPool::WorkerStatus> WorkerPool::Describe() {
  MutexLock lock(&mutex_);
  return DescribeLocked();
}

std::vector<WorkerPool::WorkerStatus> WorkerPool::DescribeLocked(
    std::vector<uint64_t>* places) {
  std::vector<WorkerStatus> all;
  for (const auto& [number, place] : places_) {
    if (place.removed) continue;
    WorkerStatus status;
    status.name = place.worker->name();
    status.info = place.worker->info();
    status.in_flight = place.in_flight;
    Judge(&status);
    all.push_back(std::move(status));
    if (places != nullptr) places->push_back(number);
  }
  Remember(all);
  return all;
}

void WorkerPool::Remember(const std::vector<WorkerStatus>& all) {
  int64_t least = 0;
  bool any = false;
  for (const WorkerStatus& worker : all) {
    if (!worker.not_ready.empty() && !worker.can_wait) continue;
    any = true;
    if (const int64_t length = worker.info.max_model_len; length > 0) {
      least = least > 0 ? std::min(least, length) : length;
    }
  }
  if (any) {
    last_choosable_ = options_.now();
    max_model_len_ = least;
  }
  if (std::exchange(any_choosable_, any) == any) return;
  if (any) {
    LogInfo("attention workers can take requests");
  } else {
    LogWarning(absl::StrCat("no attention worker can take requests",
                            all.empty() ? "" : ": ", Reasons(all)));
  }
}

void WorkerPool::Judge(WorkerStatus* worker) {
  using State = AttentionWorkerInfo::State;
  const AttentionWorkerInfo& info = worker->info;
  worker->not_ready = WhyNotReady(info);
  worker->can_wait = info.state == State::kWaitingExperts;
  if (worker->not_ready.empty() && info.silent) {
    worker->not_ready = "does not answer";
    worker->can_wait = true;
  }
  if (!worker->not_ready.empty() && !worker->can_wait) return;
  if (fingerprint_.empty()) {
    fingerprint_ = info.model_fingerprint;
    fingerprint_from_ = worker->name;
    LogInfo(absl::StrCat("the model is that of ", worker->name,
                         ", with the fingerprint ", fingerprint_));
  }
  if (info.model_fingerprint == fingerprint_) return;
  worker->can_wait = false;
  worker->not_ready = absl::StrCat("serves another model: its fingerprint is ",
                                   info.model_fingerprint, ", that of ",
                                   fingerprint_from_, " is ", fingerprint_);
}

}  // namespace switchyard::router
