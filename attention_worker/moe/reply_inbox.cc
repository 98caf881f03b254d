#include "attention_worker/moe/reply_inbox.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "absl/types/optional.h"

namespace switchyard::attention_worker {
namespace {

// Peers that never stop sending must not keep the step thread here.
constexpr int kMaxEventsAtOnce = 256;
// A look that brings a reply so soon did not have to wait for it.
constexpr absl::Duration kFoundAtOnce = absl::Microseconds(20);

}  // namespace

ReplyInbox::ReplyInbox(metrics::Counter* late, std::shared_ptr<ReplyPump> pump,
                       const Clock* clock)
    : late_(late), pump_(std::move(pump)), clock_(clock) {}

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
  for (const Arrival& arrival : dropped) {
    late_->Increment();
    if (news_.late.size() == kMaxLate) continue;
    news_.late.push_back({arrival.ticket, arrival.arrived, arrival.not_before,
                          arrival.reply.ok()});
  }
}

absl::Time ReplyInbox::NotBefore(absl::Time now) const {
  // Other threads bring it at once; so does a Poll that had to wait for it.
  if (looks_since_ == absl::InfiniteFuture() ||
      now - looks_since_ > kFoundAtOnce) {
    return now;
  }
  return std::min(now, looked_until_);
}

void ReplyInbox::Deliver(const Ticket& ticket,
                         absl::StatusOr<ExpertReply> reply) {
  const absl::Time now = clock_->Now();
  {
    MutexLock lock(&mutex_);
    const absl::Time not_before = NotBefore(now);
    if (ticket.dispatch == kProbe) {
      news_.probes.push_back({ticket, now, not_before, std::move(reply)});
      return;
    }
    if (!open_ || ticket.dispatch != dispatch_) {
      late_->Increment();
      if (news_.late.size() < kMaxLate) {
        news_.late.push_back({ticket, now, not_before, reply.ok()});
      }
      return;
    }
    news_.arrivals.push_back({ticket, now, not_before, std::move(reply)});
  }
  Notify();
}

void ReplyInbox::HoldingsChanged(uint64_t client) {
  {
    MutexLock lock(&mutex_);
    std::vector<uint64_t>& changed = news_.changed;
    if (std::find(changed.begin(), changed.end(), client) == changed.end()) {
      changed.push_back(client);
    }
  }
  Notify();
}

void ReplyInbox::ClientsChanged() {
  {
    MutexLock lock(&mutex_);
    news_.clients_changed = true;
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

bool ReplyInbox::Look(absl::Time deadline) {
  {
    MutexLock lock(&mutex_);
    looks_since_ = clock_->Now();
  }
  const bool event = pump_->Poll(deadline);
  MutexLock lock(&mutex_);
  looks_since_ = absl::InfiniteFuture();
  looked_until_ = clock_->Now();
  return event;
}

void ReplyInbox::Take(absl::Time deadline, ComputePool* pool, News* news) {
  // What is there already, so that a caller who does not wait gets it too.
  if (pump_ != nullptr) {
    for (int i = 0; i < kMaxEventsAtOnce; ++i) {
      if (!Look(absl::InfinitePast())) break;
    }
  }
  news->arrivals.clear();
  news->probes.clear();
  news->late.clear();
  news->changed.clear();
  news->clients_changed = false;
  absl::optional<ComputePool::Paused> paused;
  mutex_.Lock();
  while (!HasNews()) {
    const absl::Time now = clock_->Now();
    if (now >= deadline) break;
    if (pool != nullptr && !paused.has_value()) paused.emplace(pool);
    if (pump_ == nullptr) {
      // Condition variables wait in the machine's time.
      something_new_.WaitUntil(&mutex_, absl::Now() + (deadline - now));
      continue;
    }
    polling_ = std::this_thread::get_id();
    mutex_.Unlock();
    Look(deadline);
    mutex_.Lock();
    polling_ = std::thread::id();
  }
  std::swap(*news, news_);
  mutex_.Unlock();
}

}  // namespace switchyard::attention_worker
