#include "attention_worker/moe/reply_inbox.h"

#include <optional>
#include <utility>

namespace switchyard::attention_worker {

// All holdings count as changed at first, so that they are read once.
ReplyInbox::ReplyInbox(size_t num_clients, metrics::Counter* late)
    : late_(late) {
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
  MutexLock lock(&mutex_);
  if (!open_ || dispatch != dispatch_) {
    late_->Increment();
    return;
  }
  news_.arrivals.push_back({call, std::move(reply)});
  something_new_.SignalAll();
}

void ReplyInbox::HoldingsChanged(size_t client) {
  MutexLock lock(&mutex_);
  news_.changed[client] = true;
  any_changed_ = true;
  something_new_.SignalAll();
}

ReplyInbox::News ReplyInbox::Take(absl::Time deadline, ComputePool* pool) {
  News news;
  std::optional<ComputePool::Paused> paused;
  MutexLock lock(&mutex_);
  while (news_.arrivals.empty() && !any_changed_ && absl::Now() < deadline) {
    if (pool != nullptr && !paused.has_value()) paused.emplace(pool);
    something_new_.WaitUntil(&mutex_, deadline);
  }
  news.changed.assign(news_.changed.size(), false);
  any_changed_ = false;
  std::swap(news, news_);
  return news;
}

}  // namespace switchyard::attention_worker
