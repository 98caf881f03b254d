// Clients of the expert workers that the routers know: made when one comes,
// let go when it is gone.
//
// Above: attention_worker/server.cc. Below: grpc_expert_client.h. Who is there
// says fabric/client/membership_client.h.

#ifndef SWITCHYARD_ATTENTION_WORKER_CLIENT_MEMBER_CLIENTS_H_
#define SWITCHYARD_ATTENTION_WORKER_CLIENT_MEMBER_CLIENTS_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "attention_worker/moe/expert_client.h"
#include "base/mutex.h"
#include "fabric/membership/member.h"

namespace switchyard::attention_worker {

// A thread of its own ("expert-members"), since making and ending clients takes
// a while. One client for each address, whatever instance is there. A worker
// that no router knows any more keeps its client as long as that is connected:
// what a worker holds it says itself. Thread-safe.
class MemberClients {
 public:
  struct Options {
    // Expert workers of another model or format are not for this process.
    std::string model_fingerprint;
    std::string weight_format;
    std::function<std::shared_ptr<const fabric::View>()> view;  // thread-safe
    std::function<absl::StatusOr<std::unique_ptr<ExpertClient>>(
        const std::string& address)>
        connect;
    // All clients there are, in the order of their addresses.
    std::function<void(std::vector<std::shared_ptr<ExpertClient>>)> set_clients;
  };

  explicit MemberClients(Options options);
  // Stops.
  ~MemberClients();

  // Nothing is asked or set from now on. Idempotent; of one thread.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

  // The view has changed.
  void Wake() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  void Follow();

  const Options options_;
  std::map<std::string, std::shared_ptr<ExpertClient>> clients_;  // of Run

  Mutex mutex_;
  CondVar wake_;
  bool woken_ ABSL_GUARDED_BY(mutex_) = true;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CLIENT_MEMBER_CLIENTS_H_
