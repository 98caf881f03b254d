#include "attention_worker/client/expert_io.h"

#include <algorithm>
#include <limits>

#include "absl/time/clock.h"
#include "base/check.h"
#include "base/hand_over.h"
#include "base/thread.h"
#include "rpc/queue_poll.h"

namespace switchyard::attention_worker {
namespace {

// The dispatching thread looks once in each layer of a step: if it does not for
// so long, it is busy with something else or idle.
constexpr absl::Duration kCallerComesBack = absl::Milliseconds(5);

// Nothing waits for it: the queue's events end the wait.
constexpr absl::Duration kLongWait = absl::Hours(1);

}  // namespace

ExpertIo::ExpertIo(absl::Duration spin) : spin_(spin) {
  thread_ = StartThread("expert-io", [this] { Loop(); });
}

ExpertIo::~ExpertIo() {
  {
    MutexLock lock(&mutex_);
    SY_CHECK(handlers_.empty());
  }
  {
    MutexLock lock(&park_mutex_);
    stopping_ = true;
    unpark_.SignalAll();
  }
  Wake();
  thread_.join();
  {
    MutexLock lock(&alarm_mutex_);
    if (timer_set_) timer_.Cancel();
  }
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

void ExpertIo::Add(ExpertIoHandler* handler) {
  {
    MutexLock lock(&mutex_);
    handlers_.insert(handler);
  }
  ScheduleTimer(absl::InfinitePast());
}

void ExpertIo::Remove(ExpertIoHandler* handler) {
  MutexLock lock(&mutex_);
  handlers_.erase(handler);
}

// One alarm at a time. To move it to an earlier time it is cancelled, and set
// again when it has come back.
void ExpertIo::ScheduleTimer(absl::Time when) {
  MutexLock lock(&alarm_mutex_);
  if (when >= timer_wanted_) return;
  timer_wanted_ = when;
  if (timer_set_) {
    if (when < timer_at_) timer_.Cancel();
    return;
  }
  timer_set_ = true;
  timer_at_ = when;
  timer_.Set(&queue_,
             absl::ToChronoTime(std::clamp(when, absl::UnixEpoch(),
                                           absl::Now() + absl::Hours(24))),
             &timer_tag_);
}

void ExpertIo::RunTimers() {
  const absl::Time now = absl::Now();
  absl::Time wanted;
  {
    MutexLock lock(&alarm_mutex_);
    timer_set_ = false;
    wanted = timer_wanted_;
    timer_wanted_ = absl::InfiniteFuture();
  }
  // Cancelled in favour of an earlier time that has not come yet.
  absl::Time next = wanted;
  if (now >= wanted) {
    next = absl::InfiniteFuture();
    MutexLock lock(&mutex_);
    for (ExpertIoHandler* const handler : handlers_) {
      next = std::min(next, handler->OnTimer(now));
    }
  }
  if (next != absl::InfiniteFuture()) ScheduleTimer(next);
}

void ExpertIo::Wake() {
  MutexLock lock(&alarm_mutex_);
  if (wake_set_) return;
  wake_set_ = true;
  wake_.Set(&queue_, absl::ToChronoTime(absl::UnixEpoch()), &wake_tag_);
}

void ExpertIo::Handle(void* tag, bool ok) {
  TakeOver(tag);
  auto* const event = static_cast<Tag*>(tag);
  if (event == &timer_tag_) {
    RunTimers();
  } else if (event == &wake_tag_) {
    MutexLock lock(&alarm_mutex_);
    wake_set_ = false;
  } else {
    event->handler->OnEvent(event->op, ok);
  }
}

bool ExpertIo::Poll(absl::Time deadline) {
  const bool waits = deadline != absl::InfinitePast();
  if (waits) {
    caller_polls_ = true;
    if (caller_woken_.exchange(false)) {
      caller_polls_ = false;
      return false;
    }
  }
  void* tag = nullptr;
  bool ok = false;
  const bool event = rpc::NextEvent(&queue_, spin_, deadline, &tag, &ok) ==
                     grpc::CompletionQueue::GOT_EVENT;
  caller_looks_until_ = absl::ToUnixNanos(absl::Now() + kCallerComesBack);
  if (waits) caller_polls_ = false;
  if (event) Handle(tag, ok);
  return event;
}

bool ExpertIo::Park() {
  MutexLock lock(&park_mutex_);
  while (!stopping_) {
    const absl::Time now = absl::Now();
    const absl::Time until = caller_polls_
                                 ? now + kCallerComesBack
                                 : absl::FromUnixNanos(caller_looks_until_);
    if (now >= until) return true;
    unpark_.WaitUntil(&park_mutex_, until);
  }
  return false;
}

void ExpertIo::Loop() {
  while (Park()) {
    void* tag = nullptr;
    bool ok = false;
    if (queue_.AsyncNext(&tag, &ok,
                         absl::ToChronoTime(absl::Now() + kLongWait)) !=
        grpc::CompletionQueue::GOT_EVENT) {
      continue;
    }
    Handle(tag, ok);
    if (tag == &wake_tag_) {
      // It was meant for the caller: who either comes and sees that, or is
      // there already and is woken again, while this thread parks.
      caller_woken_ = true;
      if (caller_polls_) Wake();
    }
  }
}

}  // namespace switchyard::attention_worker
