#include "attention_worker/moe/reply_inbox.h"

#include <utility>

#include "absl/time/clock.h"
#include "absl/types/optional.h"

namespace switchyard::attention_worker {
namespace {

// Peers that never stop sending must not keep the step thread here.
constexpr int kMaxEventsAtOnce = 256;

}  // namespace

// All holdings count as changed at first, so that they are read once.
ReplyInbox::ReplyInbox(size_t num_clients, metrics::Counter* late,
                       std::shared_ptr<ReplyPump> pump)
    : late_(late), pump_(std::move(pump)) {
  news_.changed.assign(num_clients, true);
}

uint64_t ReplyInbox::Open() {
  MutexLock lock(&mutex_);
  open_ = true;
  return ++dispatch_;
}

void ReplyInbox::Close() {
  std::vector<Arrival> dropped;  // freed after the lock
  MutexLock lock(&mutex_);
  open_ = false;
  dropped.swap(news_.arrivals);
  late_->Increment(static_cast<double>(dropped.size()));
}

void ReplyInbox::Deliver(uint64_t dispatch, size_t call,
                         absl::StatusOr<ExpertReply> reply) {
  {
    MutexLock lock(&mutex_);
    if (!open_ || dispatch != dispatch_) {
      late_->Increment();
      return;
    }
    news_.arrivals.push_back({call, std::move(reply)});
  }
  Notify();
}

void ReplyInbox::HoldingsChanged(size_t client) {
  {
    MutexLock lock(&mutex_);
    news_.changed[client] = true;
    any_changed_ = true;
  }
  Notify();
}

void ReplyInbox::Notify() {
  bool wake = false;
  {
    MutexLock lock(&mutex_);
    something_new_.SignalAll();
    // The polling thread itself looks here when its Poll returns.
    wake =
        polling_ != std::thread::id() && polling_ != std::this_thread::get_id();
  }
  if (wake) pump_->Wake();
}

void ReplyInbox::Take(absl::Time deadline, ComputePool* pool, News* news) {
  // What is there already, so that a caller who does not wait gets it too.
  if (pump_ != nullptr) {
    for (int i = 0; i < kMaxEventsAtOnce; ++i) {
      if (!pump_->Poll(absl::InfinitePast())) break;
    }
  }
  news->arrivals.clear();
  absl::optional<ComputePool::Paused> paused;
  mutex_.Lock();
  while (!HasNews() && absl::Now() < deadline) {
    if (pool != nullptr && !paused.has_value()) paused.emplace(pool);
    if (pump_ == nullptr) {
      something_new_.WaitUntil(&mutex_, deadline);
      continue;
    }
    polling_ = std::this_thread::get_id();
    mutex_.Unlock();
    pump_->Poll(deadline);
    mutex_.Lock();
    polling_ = std::thread::id();
  }
  news->changed.assign(news_.changed.size(), false);
  any_changed_ = false;
  std::swap(*news, news_);
  mutex_.Unlock();
}

}  // namespace switchyard::attention_worker
