#include "router/routing/worker_pool.h"

#include <algorithm>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/log.h"

namespace switchyard::router {
namespace {

// Why a worker in this state can't be chosen; empty if it can.
std::string WhyNot(const AttentionWorkerInfo& info) {
  const auto with_message = [&](std::string text) {
    return info.message.empty() ? text
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

}  // namespace

WorkerLease::WorkerLease(WorkerLease&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)),
      index_(other.index_),
      worker_(other.worker_) {}

WorkerLease& WorkerLease::operator=(WorkerLease&& other) noexcept {
  if (this == &other) return *this;
  Release();
  pool_ = std::exchange(other.pool_, nullptr);
  index_ = other.index_;
  worker_ = other.worker_;
  return *this;
}

WorkerLease::~WorkerLease() { Release(); }

void WorkerLease::Release() {
  if (pool_ == nullptr) return;
  MutexLock lock(&pool_->mutex_);
  --pool_->in_flight_[index_];
  SY_CHECK(pool_->in_flight_[index_] >= 0);
  pool_ = nullptr;
}

WorkerPool::WorkerPool(std::vector<AttentionClient*> workers,
                       const RoutingPolicy* policy)
    : workers_(std::move(workers)),
      policy_(policy),
      in_flight_(workers_.size(), 0) {
  SY_CHECK(!workers_.empty() && policy_ != nullptr);
}

absl::StatusOr<WorkerLease> WorkerPool::Choose(
    absl::Span<const std::string> exclude) {
  MutexLock lock(&mutex_);
  std::vector<WorkerStatus> all = DescribeLocked();
  std::vector<RoutingCandidate> candidates;
  std::vector<size_t> indices;
  for (size_t i = 0; i < all.size(); ++i) {
    WorkerStatus& worker = all[i];
    if (worker.not_usable.empty() &&
        absl::c_linear_search(exclude, worker.name)) {
      worker.not_usable = "failed this request already";
    }
    if (!worker.not_usable.empty()) continue;
    candidates.push_back({.name = worker.name,
                          .load = std::max(worker.info.running_requests +
                                               worker.info.waiting_requests,
                                           worker.in_flight)});
    indices.push_back(i);
  }
  if (candidates.empty()) {
    return absl::UnavailableError(absl::StrCat(
        "no attention worker can take the request: ",
        absl::StrJoin(
            all, "; ", [](std::string* out, const WorkerStatus& worker) {
              absl::StrAppend(out, worker.name, ": ", worker.not_usable);
            })));
  }
  const size_t choice = policy_->Choose(candidates, turn_++);
  SY_CHECK(choice < candidates.size());
  const size_t index = indices[choice];
  ++in_flight_[index];
  return WorkerLease(this, index, workers_[index]);
}

std::vector<WorkerPool::WorkerStatus> WorkerPool::Describe() {
  MutexLock lock(&mutex_);
  return DescribeLocked();
}

std::vector<WorkerPool::WorkerStatus> WorkerPool::DescribeLocked() {
  std::vector<WorkerStatus> all;
  for (size_t i = 0; i < workers_.size(); ++i) {
    WorkerStatus status;
    status.name = workers_[i]->name();
    status.info = workers_[i]->info();
    status.in_flight = in_flight_[i];
    status.not_usable = WhyNot(status.info);
    const std::string& fingerprint = status.info.model_fingerprint;
    if (status.not_usable.empty() && fingerprint_.empty()) {
      fingerprint_ = fingerprint;
      fingerprint_from_ = status.name;
      LogInfo(absl::StrCat("the model is that of ", status.name,
                           ", with the fingerprint ", fingerprint));
    }
    if (status.not_usable.empty() && fingerprint != fingerprint_) {
      status.not_usable =
          absl::StrCat("serves another model: its fingerprint is ", fingerprint,
                       ", that of ", fingerprint_from_, " is ", fingerprint_);
    }
    all.push_back(std::move(status));
  }
  return all;
}

}  // namespace switchyard::router
