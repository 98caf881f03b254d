#include "attention_worker/moe/client_set.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "base/check.h"

namespace switchyard::attention_worker {

ClientSet::ClientSet(std::shared_ptr<ReplyInbox> inbox)
    : inbox_(std::move(inbox)) {}

ClientSet::~ClientSet() {
  MutexLock lock(&mutex_);
  for (const Owned& owned : owned_) owned.client->SetListener(nullptr);
}

void ClientSet::Set(std::vector<std::shared_ptr<ExpertClient>> clients) {
  std::set<std::string> names;
  for (const auto& client : clients) {
    SY_CHECK(client != nullptr && names.insert(client->name()).second);
  }
  MutexLock set_lock(&set_mutex_);
  std::vector<Owned> before;
  {
    MutexLock lock(&mutex_);
    before = owned_;
  }
  std::vector<Owned> after;
  std::vector<ExpertClient*> added;
  for (auto& client : clients) {
    const auto same = std::find_if(
        before.begin(), before.end(),
        [&client](const Owned& owned) { return owned.client == client; });
    if (same == before.end()) added.push_back(client.get());
    after.push_back(
        {same == before.end() ? next_id_++ : same->id, std::move(client)});
  }
  // Whoever reads the new set reads the holdings, too: a change that the
  // listener does not hear has happened before that.
  for (const Owned& owned : after) {
    if (std::find(added.begin(), added.end(), owned.client.get()) ==
        added.end()) {
      continue;
    }
    owned.client->SetListener(
        [inbox = inbox_, id = owned.id] { inbox->HoldingsChanged(id); });
  }
  {
    MutexLock lock(&mutex_);
    for (Owned& owned : before) {
      const bool stays = std::any_of(
          after.begin(), after.end(),
          [&owned](const Owned& other) { return other.id == owned.id; });
      if (stays) continue;
      owned.client->SetListener(nullptr);
      removed_.push_back({dispatch_, std::move(owned.client)});
    }
    owned_ = std::move(after);
    ++version_;
  }
  inbox_->ClientsChanged();
  FreeRemoved();
}

std::vector<std::shared_ptr<ExpertClient>> ClientSet::clients() const {
  MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<ExpertClient>> clients;
  clients.reserve(owned_.size());
  for (const Owned& owned : owned_) clients.push_back(owned.client);
  return clients;
}

void ClientSet::FreeRemoved() {
  std::vector<Removed> freed;  // after the lock
  MutexLock lock(&mutex_);
  const bool dispatching = dispatching_;
  const uint64_t dispatch = dispatch_;
  const auto used = std::partition(
      removed_.begin(), removed_.end(), [&](const Removed& removed) {
        return dispatching && removed.dispatch == dispatch;
      });
  freed.assign(std::make_move_iterator(used),
               std::make_move_iterator(removed_.end()));
  removed_.erase(used, removed_.end());
}

bool ClientSet::BeginDispatch(uint64_t* version, std::vector<Member>* members) {
  MutexLock lock(&mutex_);
  SY_CHECK(!dispatching_);
  dispatching_ = true;
  ++dispatch_;
  return ReadLocked(version, members);
}

bool ClientSet::Read(uint64_t* version, std::vector<Member>* members) {
  MutexLock lock(&mutex_);
  return ReadLocked(version, members);
}

bool ClientSet::ReadLocked(uint64_t* version, std::vector<Member>* members) {
  if (*version == version_) return false;
  *version = version_;
  members->clear();
  for (const Owned& owned : owned_) {
    members->push_back({owned.id, owned.client.get()});
  }
  return true;
}

void ClientSet::EndDispatch() {
  MutexLock lock(&mutex_);
  dispatching_ = false;
}

}  // namespace switchyard::attention_worker
