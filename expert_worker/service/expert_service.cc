#include "expert_worker/service/expert_service.h"

#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/check.h"
#include "base/thread.h"
#include "rpc/channel.h"

namespace switchyard::expert_worker {
namespace {

static_assert(kMaxOutputBytes < rpc::kMaxMessageBytes);

// How often the connections look at the time.
constexpr absl::Duration kTick = absl::Milliseconds(100);

}  // namespace

ExpertService::ExpertService(const ConnectionOptions& options)
    : options_(options),
      not_serving_(absl::UnavailableError("this worker is loading")) {}

ExpertService::~ExpertService() { SY_CHECK(!thread_.joinable()); }

void ExpertService::Start(grpc::ServerCompletionQueue* queue) {
  queue_ = queue;
  OfferConnection();
  thread_ = StartThread("expert-rpc", [this] { Loop(); });
}

void ExpertService::SetServing(ServingState state) {
  MutexLock lock(&mutex_);
  serving_ = std::make_shared<const ServingState>(std::move(state));
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

void ExpertService::Loop() {
  absl::Time next_tick = absl::Now() + kTick;
  while (true) {
    {
      MutexLock lock(&mutex_);
      if (stopping_ && connections_.empty()) break;
    }
    void* tag = nullptr;
    bool ok = false;
    if (queue_->AsyncNext(&tag, &ok, absl::ToChronoTime(next_tick)) ==
        grpc::CompletionQueue::GOT_EVENT) {
      const auto* event = static_cast<const ExpertConnection::Tag*>(tag);
      ExpertConnection* const connection = event->connection;
      const bool accepted = event->op == ExpertConnection::Op::kCall && ok;
      const bool over = connection->OnEvent(event->op, ok);
      {
        MutexLock lock(&mutex_);
        if (connection == offered_) offered_ = nullptr;
        if (over) {
          connections_.erase(connection);
          changed_.SignalAll();
        }
      }
      if (accepted) OfferConnection();
    }
    if (const absl::Time now = absl::Now(); now >= next_tick) {
      for (const auto& connection : Connections()) connection->Tick(now);
      next_tick = now + kTick;
    }
  }
  queue_->Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
  }
}

void ExpertService::Drain(absl::Time deadline) {
  {
    MutexLock lock(&mutex_);
    draining_ = true;
  }
  for (const auto& connection : Connections()) connection->Drain();
  MutexLock lock(&mutex_);
  const auto num_open = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return connections_.size() - (offered_ == nullptr ? 0 : 1);
  };
  while (num_open() > 0 && absl::Now() < deadline) {
    changed_.WaitUntil(&mutex_, deadline);
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
