#include "router/membership/attention_members.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/thread.h"

namespace switchyard::router {
namespace {

// How soon a removed worker whose last request has ended is let go.
constexpr absl::Duration kTick = absl::Seconds(1);

}  // namespace

AttentionMembers::AttentionMembers(const MemberRegistry* registry,
                                   WorkerPool* pool, MakeClient make_client)
    : registry_(registry), pool_(pool), make_client_(std::move(make_client)) {
  thread_ = StartThread("sy-pool", [this] { Run(); });
}

AttentionMembers::~AttentionMembers() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    wake_.Signal();
  }
  thread_.join();
}

void AttentionMembers::Changed() {
  MutexLock lock(&mutex_);
  changed_ = true;
  wake_.Signal();
}

void AttentionMembers::Follow() {
  std::map<std::string, std::string> now;
  for (const fabric::Member& member : registry_->members()) {
    if (member.role == fabric::MemberRole::kAttentionWorker) {
      now.emplace(member.instance_id, member.address);
    }
  }
  std::set<std::string> addresses;
  for (const auto& [id, address] : now) addresses.insert(address);
  for (const auto& [id, address] : members_) {
    // The client of an address serves the instance that comes there, too.
    if (!addresses.contains(address) && pool_->Remove(address)) {
      LogInfo(absl::StrCat("attention worker at ", address, " is gone"));
    }
  }
  for (const auto& [id, address] : now) {
    if (members_.contains(id)) continue;
    if (pool_->AskNow(address)) {
      LogInfo(absl::StrCat("attention worker at ", address,
                           ": another instance joined"));
      continue;
    }
    auto client = make_client_(address);
    if (!client.ok()) {
      LogWarning(absl::StrCat("cannot use the attention worker at ", address,
                              ": ", client.status().ToString()));
    } else if (pool_->Add(*std::move(client))) {
      LogInfo(absl::StrCat("attention worker at ", address, " joined"));
    }
  }
  members_ = std::move(now);
}

void AttentionMembers::Run() {
  while (true) {
    bool changed = false;
    {
      MutexLock lock(&mutex_);
      const absl::Time next = absl::Now() + kTick;
      while (!changed_ && !stopping_ && absl::Now() < next) {
        wake_.WaitUntil(&mutex_, next);
      }
      if (stopping_) return;
      changed = std::exchange(changed_, false);
    }
    if (changed) Follow();
    pool_->TakeRemoved().clear();  // ends them here
  }
}

}  // namespace switchyard::router
