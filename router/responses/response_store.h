// Answers of /v1/responses that clients may ask for again, or go on from: in
// memory, as many as fit. The oldest that nobody asked for goes first.

#ifndef SWITCHYARD_ROUTER_RESPONSES_RESPONSE_STORE_H_
#define SWITCHYARD_ROUTER_RESPONSES_RESPONSE_STORE_H_

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "base/json.h"
#include "base/mutex.h"

namespace switchyard::router {

struct StoredResponse {
  Json response;     // the object, as GET gives it
  Json input_items;  // of this request alone, with ids
  Json history;      // items of the whole conversation, the output included
};

// Thread-safe.
class ResponseStore {
 public:
  // `max_bytes` counts the JSON texts.
  explicit ResponseStore(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // Replaces what has the id. What is larger than the whole store is not kept.
  void Put(const std::string& id, StoredResponse stored);
  // The same, but only if there is one of this id: what was deleted meanwhile
  // stays so.
  void Replace(const std::string& id, StoredResponse stored);
  // Null if there is none, or no longer. Counts as a use.
  std::shared_ptr<const StoredResponse> Get(absl::string_view id);
  bool Erase(absl::string_view id);

 private:
  struct Entry {
    std::string id;
    std::shared_ptr<const StoredResponse> stored;
    int64_t bytes = 0;
  };
  static Entry MakeEntry(const std::string& id, StoredResponse stored);
  void PutLocked(Entry entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EraseLocked(const std::string& id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t max_bytes_;
  Mutex mutex_;
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mutex_);  // last used first
  absl::flat_hash_map<std::string, std::list<Entry>::iterator> by_id_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_RESPONSES_RESPONSE_STORE_H_
