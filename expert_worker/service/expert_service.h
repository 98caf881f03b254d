// gRPC face of the expert worker: accepts streams, and runs their state
// machines. The thread that reads a request computes it, too, so that nobody
// has to be woken between the network and the arithmetic.
//
// Above: server.h. Below: expert_connection.h, one for each stream.

#ifndef SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_SERVICE_H_
#define SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_SERVICE_H_

#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "expert_worker/service/expert_connection.h"
#include "grpcpp/completion_queue.h"
#include "proto/expert.grpc.pb.h"

namespace switchyard::expert_worker {

// Life: constructed; registered with a server (grpc_service()); Start;
// SetServing once loaded; Drain; the server's Shutdown; Stop; destroyed.
// Thread-safe.
class ExpertService {
 public:
  // The threads look for `spin` for the next event before they sleep
  // (rpc/queue_poll.h).
  explicit ExpertService(const ConnectionOptions& options,
                         absl::Duration spin = absl::ZeroDuration());
  // REQUIRES: never started, or stopped.
  ~ExpertService();

  grpc::Service* grpc_service() { return &service_; }

  // Accepts streams from `queue`, which is the server's and outlives Stop, on
  // two threads: "expert-rpc" handles events and computes; "expert-standby"
  // handles events while the other one has been computing for a while. Until
  // SetServing streams are refused with UNAVAILABLE.
  void Start(grpc::ServerCompletionQueue* queue);

  // `state.queue` outlives Stop.
  void SetServing(ServingState state) ABSL_LOCKS_EXCLUDED(mutex_);

  // What is held from now on: streams are told, and so are those that come.
  // REQUIRES: SetServing.
  void SetHoldings(const model::ExpertSet& holdings)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // What refused clients are told instead of "loading".
  void SetNotServing(const absl::Status& why) ABSL_LOCKS_EXCLUDED(mutex_);

  // Refuses new streams, and ends the open ones once their requests are
  // answered. Returns when all have ended, or at `deadline`. Idempotent.
  void Drain(absl::Time deadline) ABSL_LOCKS_EXCLUDED(mutex_);

  // REQUIRES: the server is shut down. Waits for the streams' last operations,
  // then shuts the completion queue down and drains it.
  void Stop() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using RawService = v1::Expert::WithRawMethod_Connect<v1::Expert::Service>;

  void Loop();
  void Standby() ABSL_LOCKS_EXCLUDED(busy_mutex_);
  // Waits for events until `deadline`, and handles those that are there.
  void HandleEvents(absl::Time deadline);
  void HandleEvent(void* tag, bool ok);
  // The queue, if something waits in it; else null.
  ComputeQueue* PendingWork() ABSL_LOCKS_EXCLUDED(mutex_);
  void SetBusySince(absl::Time when) ABSL_LOCKS_EXCLUDED(busy_mutex_);
  void OfferConnection() ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<std::shared_ptr<const ServingState>> GetServing()
      ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<std::shared_ptr<ExpertConnection>> Connections()
      ABSL_LOCKS_EXCLUDED(mutex_);

  const ConnectionOptions options_;
  const absl::Duration spin_;
  RawService service_;
  grpc::ServerCompletionQueue* queue_ = nullptr;

  Mutex mutex_;
  CondVar changed_;
  absl::Status not_serving_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const ServingState> serving_ ABSL_GUARDED_BY(mutex_);
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // All that have operations in gRPC; the offered one too.
  std::unordered_map<ExpertConnection*, std::shared_ptr<ExpertConnection>>
      connections_ ABSL_GUARDED_BY(mutex_);
  // Waits for a call; one of connections_, or null.
  ExpertConnection* offered_ ABSL_GUARDED_BY(mutex_) = nullptr;

  // Of the two threads; never held together with another mutex.
  Mutex busy_mutex_;
  CondVar wake_standby_;
  // When expert-rpc went to compute; InfiniteFuture: it handles events.
  absl::Time busy_since_ ABSL_GUARDED_BY(busy_mutex_) = absl::InfiniteFuture();
  bool standby_sleeps_ ABSL_GUARDED_BY(busy_mutex_) = false;
  bool over_ ABSL_GUARDED_BY(busy_mutex_) = false;

  std::thread thread_;  // last: these use everything above
  std::thread standby_;
};

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_SERVICE_H_
