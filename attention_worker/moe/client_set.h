// Who a dispatcher's clients are, while they come and go.
//
// Above: expert_dispatcher.h changes the set, dispatch_run.h uses it.

#ifndef SWITCHYARD_ATTENTION_WORKER_MOE_CLIENT_SET_H_
#define SWITCHYARD_ATTENTION_WORKER_MOE_CLIENT_SET_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "attention_worker/moe/expert_client.h"
#include "attention_worker/moe/reply_inbox.h"
#include "base/mutex.h"

namespace switchyard::attention_worker {

// A dispatch uses clients by plain pointers. So a removed one is kept until the
// dispatch in which that happened is over, and it is freed by whoever calls Set
// or FreeRemoved next: never on the dispatching thread, since a destructor may
// wait for the network. Thread-safe.
class ClientSet {
 public:
  struct Member {
    uint64_t id = 0;  // of this client, never used again
    ExpertClient* client = nullptr;
  };

  explicit ClientSet(std::shared_ptr<ReplyInbox> inbox);
  // Takes the listeners away. REQUIRES: no dispatch is in progress.
  ~ClientSet();

  // Clients that stay keep their ids. REQUIRES: distinct names, no null.
  void Set(std::vector<std::shared_ptr<ExpertClient>> clients)
      ABSL_LOCKS_EXCLUDED(set_mutex_, mutex_);
  std::vector<std::shared_ptr<ExpertClient>> clients() const
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Frees what was removed and is not used any more.
  void FreeRemoved() ABSL_LOCKS_EXCLUDED(mutex_);

  // --- The dispatching thread's. ---

  // A dispatch begins, or it heard that the clients changed: now they are
  // these, if their version is not *version any more. What was read stays
  // valid until EndDispatch.
  bool BeginDispatch(uint64_t* version, std::vector<Member>* members)
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool Read(uint64_t* version, std::vector<Member>* members)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void EndDispatch() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Owned {
    uint64_t id = 0;
    std::shared_ptr<ExpertClient> client;
  };
  struct Removed {
    uint64_t dispatch = 0;  // in which it may still be used
    std::shared_ptr<ExpertClient> client;
  };

  bool ReadLocked(uint64_t* version, std::vector<Member>* members)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::shared_ptr<ReplyInbox> inbox_;
  Mutex set_mutex_;  // held through Set: one after the other
  uint64_t next_id_ ABSL_GUARDED_BY(set_mutex_) = 1;

  mutable Mutex mutex_;
  std::vector<Owned> owned_ ABSL_GUARDED_BY(mutex_);
  std::vector<Removed> removed_ ABSL_GUARDED_BY(mutex_);
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t dispatch_ ABSL_GUARDED_BY(mutex_) = 0;
  bool dispatching_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_MOE_CLIENT_SET_H_
