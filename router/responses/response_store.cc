#include "router/responses/response_store.h"

#include <utility>

namespace switchyard::router {

ResponseStore::Entry ResponseStore::MakeEntry(const std::string& id,
                                              StoredResponse stored) {
  const int64_t bytes = static_cast<int64_t>(
      DumpJson(stored.response).size() + DumpJson(stored.input_items).size() +
      DumpJson(stored.history).size());
  return {id, std::make_shared<const StoredResponse>(std::move(stored)), bytes};
}

void ResponseStore::PutLocked(Entry entry) {
  EraseLocked(entry.id);
  if (entry.bytes > max_bytes_) return;
  while (bytes_ + entry.bytes > max_bytes_) {
    const std::string oldest = entries_.back().id;
    EraseLocked(oldest);
  }
  bytes_ += entry.bytes;
  entries_.push_front(std::move(entry));
  by_id_[entries_.front().id] = entries_.begin();
}

void ResponseStore::Put(const std::string& id, StoredResponse stored) {
  Entry entry = MakeEntry(id, std::move(stored));
  MutexLock lock(&mutex_);
  PutLocked(std::move(entry));
}

void ResponseStore::Replace(const std::string& id, StoredResponse stored) {
  Entry entry = MakeEntry(id, std::move(stored));
  MutexLock lock(&mutex_);
  if (by_id_.contains(id)) PutLocked(std::move(entry));
}

std::shared_ptr<const StoredResponse> ResponseStore::Get(absl::string_view id) {
  MutexLock lock(&mutex_);
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, it->second);
  return it->second->stored;
}

bool ResponseStore::Erase(absl::string_view id) {
  MutexLock lock(&mutex_);
  if (!by_id_.contains(id)) return false;
  EraseLocked(std::string(id));
  return true;
}

void ResponseStore::EraseLocked(const std::string& id) {
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) return;
  bytes_ -= it->second->bytes;
  entries_.erase(it->second);
  by_id_.erase(it);
}

}  // namespace switchyard::router
