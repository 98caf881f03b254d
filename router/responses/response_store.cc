#include "router/responses/response_store.h"

#include <utility>

namespace switchyard::router {

void ResponseStore::Put(const std::string& id, StoredResponse stored) {
  const int64_t bytes = static_cast<int64_t>(
      DumpJson(stored.response).size() + DumpJson(stored.input_items).size() +
      DumpJson(stored.history).size());
  MutexLock lock(&mutex_);
  EraseLocked(id);
  if (bytes > max_bytes_) return;
  while (bytes_ + bytes > max_bytes_) {
    const std::string oldest = entries_.back().id;
    EraseLocked(oldest);
  }
  entries_.push_front(
      {id, std::make_shared<const StoredResponse>(std::move(stored)), bytes});
  by_id_[id] = entries_.begin();
  bytes_ += bytes;
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
