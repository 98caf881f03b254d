#include "expert_worker/service/expert_service.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/check.h"
#include "base/thread.h"
#include "rpc/channel.h"
#include "rpc/queue_poll.h"

namespace switchyard::expert_worker {
namespace {

static_assert(kMaxOutputBytes < rpc::kMaxMessageBytes);

// How often the connections look at the time.
constexpr absl::Duration kTick = absl::Milliseconds(100);

// The same, while they drain.
constexpr absl::Duration kDrainTick = absl::Milliseconds(20);

// The standby leaves one token's experts alone, which take less.
constexpr absl::Duration kStandbyAfter = absl::Milliseconds(5);
// It looks by itself now and then while there is work, so that nobody has to
// wake it, and sleeps when there has been none for so long.
constexpr absl::Duration kStandbySleepsAfter = absl::Milliseconds(50);
// How long it stays at the queue before it looks whether it still has to.
constexpr absl::Duration kStandbyTurn = absl::Milliseconds(10);

// Handled one after the other before what they brought is computed.
constexpr int kMaxEventsAtOnce = 256;

}  // namespace

ExpertService::ExpertService(const ConnectionOptions& options,
                             absl::Duration spin)
    : options_(options),
      spin_(spin),
      not_serving_(absl::UnavailableError("this worker is loading")) {}

ExpertService::~ExpertService() { SY_CHECK(!thread_.joinable()); }

void ExpertService::Start(grpc::ServerCompletionQueue* queue) {
  queue_ = queue;
  OfferConnection();
  thread_ = StartThread("expert-rpc", [this] { Loop(); });
  standby_ = StartThread("expert-standby", [this] { Standby(); });
}

void ExpertService::SetServing(ServingState state) {
  MutexLock lock(&mutex_);
  serving_ = std::make_shared<const ServingState>(std::move(state));
}

void ExpertService::SetHoldings(const model::ExpertSet& holdings) {
  {
    MutexLock lock(&mutex_);
    SY_CHECK(serving_ != nullptr);
    ServingState state = *serving_;
    state.holdings = holdings;
    serving_ = std::make_shared<const ServingState>(std::move(state));
  }
  // One that greets meanwhile is among them: it may be told twice.
  for (const auto& connection : Connections()) {
    connection->SetHoldings(holdings);
  }
}

void ExpertService::SetNotServing(const absl::Status& why) {
  SY_CHECK(!why.ok());
  MutexLock lock(&mutex_);
  serving_ = nullptr;
  not_serving_ = why;
}

absl::StatusOr<std::shared_ptr<const ServingState>>
ExpertService::GetServing() {
  MutexLock lock(&mutex_);
  if (draining_) return absl::UnavailableError("this worker is draining");
  if (serving_ == nullptr) return not_serving_;
  return serving_;
}

void ExpertService::OfferConnection() {
  auto connection = std::make_shared<ExpertConnection>(
      options_, [this] { return GetServing(); });
  ExpertConnection* const offered = connection.get();
  {
    MutexLock lock(&mutex_);
    offered_ = offered;
    connections_.emplace(offered, std::move(connection));
  }
  service_.RequestConnect(offered->context(), offered->stream(), queue_, queue_,
                          offered->call_tag());
}

std::vector<std::shared_ptr<ExpertConnection>> ExpertService::Connections() {
  std::vector<std::shared_ptr<ExpertConnection>> all;
  MutexLock lock(&mutex_);
  all.reserve(connections_.size());
  for (const auto& [key, connection] : connections_) all.push_back(connection);
  return all;
}

void ExpertService::HandleEvent(void* tag, bool ok) {
  const auto* event = static_cast<const ExpertConnection::Tag*>(tag);
  // Another thread may handle the connection's last event before this returns.
  const std::shared_ptr<ExpertConnection> connection =
      event->connection->shared_from_this();
  const bool accepted = event->op == ExpertConnection::Op::kCall && ok;
  const bool over = connection->OnEvent(event->op, ok);
  {
    MutexLock lock(&mutex_);
    if (connection.get() == offered_) offered_ = nullptr;
    if (over) {
      connections_.erase(connection.get());
      changed_.SignalAll();
    }
  }
  if (accepted) OfferConnection();
}

void ExpertService::HandleEvents(absl::Time deadline) {
  void* tag = nullptr;
  bool ok = false;
  for (int i = 0; i < kMaxEventsAtOnce; ++i) {
    if (rpc::NextEvent(queue_, spin_, i == 0 ? deadline : absl::InfinitePast(),
                       &tag, &ok) != grpc::CompletionQueue::GOT_EVENT) {
      return;
    }
    HandleEvent(tag, ok);
  }
}

ComputeQueue* ExpertService::PendingWork() {
  MutexLock lock(&mutex_);
  return serving_ != nullptr && serving_->queue->HasPending() ? serving_->queue
                                                              : nullptr;
}

void ExpertService::Loop() {
  absl::Time next_tick = absl::Now() + kTick;
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (stopping_ && connections_.empty()) break;
    }
    HandleEvents(next_tick);
    if (ComputeQueue* const work = PendingWork(); work != nullptr) {
      SetBusySince(absl::Now());
      work->RunPending();
      SetBusySince(absl::InfiniteFuture());
    }
    if (const absl::Time now = absl::Now(); now >= next_tick) {
      for (const auto& connection : Connections()) connection->Tick(now);
      next_tick = now + kTick;
    }
  }
  {
    MutexLock lock(&busy_mutex_);
    over_ = true;
    wake_standby_.Signal();
  }
  standby_.join();
  queue_->Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
  }
}

void ExpertService::SetBusySince(absl::Time when) {
  MutexLock lock(&busy_mutex_);
  busy_since_ = when;
  if (standby_sleeps_) wake_standby_.Signal();
}

void ExpertService::Standby() {
  absl::Time last_busy = absl::InfinitePast();
  busy_mutex_.Lock();
  while (!over_) {
    const absl::Time now = absl::Now();
    if (busy_since_ > now) {  // not busy
      standby_sleeps_ = now >= last_busy + kStandbySleepsAfter;
      wake_standby_.WaitUntil(&busy_mutex_, standby_sleeps_
                                                ? absl::InfiniteFuture()
                                                : now + kStandbyAfter);
      standby_sleeps_ = false;
      continue;
    }
    last_busy = now;
    if (now < busy_since_ + kStandbyAfter) {
      wake_standby_.WaitUntil(&busy_mutex_, busy_since_ + kStandbyAfter);
      continue;
    }
    busy_mutex_.Unlock();
    HandleEvents(now + kStandbyTurn);
    if (ComputeQueue* const work = PendingWork(); work != nullptr) {
      work->RunPending();
    }
    busy_mutex_.Lock();
  }
  busy_mutex_.Unlock();
}

void ExpertService::Drain(absl::Time deadline) {
  {
    MutexLock lock(&mutex_);
    draining_ = true;
  }
  for (const auto& connection : Connections()) connection->Drain();
  while (true) {
    // The thread whose ticks end quiet streams may be computing.
    const absl::Time now = absl::Now();
    for (const auto& connection : Connections()) connection->Tick(now);
    MutexLock lock(&mutex_);
    const size_t open = connections_.size() - (offered_ == nullptr ? 0 : 1);
    if (open == 0 || now >= deadline) return;
    changed_.WaitUntil(&mutex_, std::min(deadline, now + kDrainTick));
  }
}

void ExpertService::Stop() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

}  // namespace switchyard::expert_worker
