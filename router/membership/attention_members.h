// Attention workers that join become workers of the pool.
//
// Above: router/server.cc. Below: registry.h says who is there,
// router/routing/worker_pool.h takes them.

#ifndef SWITCHYARD_ROUTER_MEMBERSHIP_ATTENTION_MEMBERS_H_
#define SWITCHYARD_ROUTER_MEMBERSHIP_ATTENTION_MEMBERS_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "router/client/attention_client.h"
#include "router/membership/registry.h"
#include "router/routing/worker_pool.h"

namespace switchyard::router {

// A thread of its own ("sy-pool"), since a client's end may take a while.
// Thread-safe.
class AttentionMembers {
 public:
  using MakeClient =
      std::function<absl::StatusOr<std::unique_ptr<AttentionClient>>(
          const std::string& address)>;

  // Neither `registry` nor `pool` is owned; both outlive this.
  AttentionMembers(const MemberRegistry* registry, WorkerPool* pool,
                   MakeClient make_client);
  // The pool keeps who is in it.
  ~AttentionMembers();

  // The registry has changed.
  void Changed() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  void Follow();

  const MemberRegistry* const registry_;
  WorkerPool* const pool_;
  const MakeClient make_client_;
  // Address of those in the pool, by instance; of the thread.
  std::map<std::string, std::string> members_;

  Mutex mutex_;
  CondVar wake_;
  bool changed_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_MEMBERSHIP_ATTENTION_MEMBERS_H_
