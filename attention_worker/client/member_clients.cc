#include "attention_worker/client/member_clients.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/thread.h"

namespace switchyard::attention_worker {
namespace {

// How soon it is seen that a worker whom nobody knows has gone.
constexpr absl::Duration kTick = absl::Milliseconds(500);

}  // namespace

MemberClients::MemberClients(Options options) : options_(std::move(options)) {
  thread_ = StartThread("expert-members", [this] { Run(); });
}

MemberClients::~MemberClients() { Stop(); }

void MemberClients::Stop() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.Signal();
  }
  thread_.join();
}

void MemberClients::Wake() {
  MutexLock lock(&mutex_);
  woken_ = true;
  wake_.Signal();
}

void MemberClients::Follow() {
  std::set<std::string> known;
  const std::shared_ptr<const fabric::View> view = options_.view();
  for (const fabric::Member& member : view->members) {
    if (member.role == fabric::MemberRole::kExpertWorker &&
        member.model_fingerprint == options_.model_fingerprint &&
        member.weight_format == options_.weight_format) {
      known.insert(member.address);
    }
  }
  bool changed = false;
  for (const std::string& address : known) {
    if (clients_.contains(address)) continue;
    auto client = options_.connect(address);
    if (!client.ok()) {
      LogWarning(absl::StrCat("cannot use the expert worker at ", address, ": ",
                              client.status().ToString()));
      continue;
    }
    LogInfo(absl::StrCat("expert worker at ", address, " joined"));
    clients_.emplace(address, *std::move(client));
    changed = true;
  }
  for (auto it = clients_.begin(); it != clients_.end();) {
    if (known.contains(it->first) || it->second->health().ok()) {
      ++it;
      continue;
    }
    LogInfo(absl::StrCat("expert worker at ", it->first, " is gone"));
    it = clients_.erase(it);
    changed = true;
  }
  if (!changed) return;
  std::vector<std::shared_ptr<ExpertClient>> all;
  for (const auto& [address, client] : clients_) all.push_back(client);
  options_.set_clients(std::move(all));
}

void MemberClients::Run() {
  while (true) {
    {
      MutexLock lock(&mutex_);
      const absl::Time next = absl::Now() + kTick;
      while (!woken_ && !stopping_ && absl::Now() < next) {
        wake_.WaitUntil(&mutex_, next);
      }
      if (stopping_) return;
      woken_ = false;
    }
    Follow();
  }
}

}  // namespace switchyard::attention_worker
