// One attention worker's stream: a state machine over gRPC's completion queue.
//
// Above: expert_service.h owns the queue's thread and the set of connections.
// Below: expert_codec.h doubts the messages, compute_queue.h computes.

#ifndef SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_CONNECTION_H_
#define SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_CONNECTION_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/buffer_pool.h"
#include "base/byte_pieces.h"
#include "base/mutex.h"
#include "expert_worker/service/compute_queue.h"
#include "expert_worker/service/expert_codec.h"
#include "expert_worker/service/expert_metrics.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/async_stream.h"
#include "grpcpp/support/byte_buffer.h"
#include "model/expert_set.h"

namespace switchyard::expert_worker {

// What a stream needs in order to serve; made once, when loading is done.
struct ServingState {
  WorkerIdentity identity;
  model::ExpertSet holdings;
  ComputeQueue* queue = nullptr;  // not owned
};

struct ConnectionOptions {
  absl::Duration hello_timeout = absl::Seconds(10);
  // Requests that a client sent before it heard that this worker drains have
  // come when there were none for so long.
  absl::Duration drain_quiet_time = absl::Milliseconds(100);
  // A client that takes nothing for so long is given up.
  absl::Duration stalled_write_timeout = absl::Seconds(30);
  // Replies that wait to be sent; beyond, nothing more is read from the stream.
  int64_t max_unsent_bytes = int64_t{64} << 20;
  ExpertMetrics* metrics = nullptr;               // not owned
  std::shared_ptr<BufferPool> buffers = nullptr;  // for activations
};

// Events and ticks come from the service's threads, outcomes from the one of
// them that computes. The service keeps a connection until OnEvent says that it
// is over; outcomes that come later find it over and are dropped.
class ExpertConnection : public std::enable_shared_from_this<ExpertConnection> {
 public:
  // kWaitingForCall -> kWaitingForHello -> kServing -> kFinishing -> kOver;
  // any state may go straight to kFinishing, kWaitingForCall only to kOver.
  enum class State {
    kWaitingForCall,   // offered to gRPC; nobody has called
    kWaitingForHello,  // a stream is open
    kServing,          // welcome sent; requests are computed
    kFinishing,        // the status is being sent; operations come back
    kOver,             // no operation is left; the gRPC objects are gone
  };
  enum class Op { kCall, kRead, kWrite, kFinish };
  // What the completion queue hands back.
  struct Tag {
    ExpertConnection* connection;
    Op op;
  };
  using Stream =
      grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;
  // The current ServingState; UNAVAILABLE while there is none.
  using GetServing =
      std::function<absl::StatusOr<std::shared_ptr<const ServingState>>()>;

  ExpertConnection(const ConnectionOptions& options, GetServing get_serving);

  // For the service's RequestConnect.
  grpc::ServerContext* context() ABSL_LOCKS_EXCLUDED(mutex_);
  Stream* stream() ABSL_LOCKS_EXCLUDED(mutex_);
  Tag* call_tag() { return &call_tag_; }

  // An operation came back. True: this was the last one.
  bool OnEvent(Op op, bool ok) ABSL_LOCKS_EXCLUDED(mutex_);

  // Looks at the time.
  void Tick(absl::Time now) ABSL_LOCKS_EXCLUDED(mutex_);

  // Tells the client what is held now.
  void SetHoldings(const model::ExpertSet& holdings)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // Tells the client that nothing is held any more, answers what is in flight
  // and what was on its way, then ends the stream with UNAVAILABLE.
  void Drain() ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Rpc {
    grpc::ServerContext context;
    Stream stream{&context};
    grpc::ByteBuffer incoming;
  };

  void Read() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnMessage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnHello(const v1::Hello& hello) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnCompute(const v1::Compute& compute, const BytePieces& activations,
                 absl::Time received) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Accept(ComputeRequest request, absl::Time received)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnOutcome(uint64_t sequence, ComputeOutcome outcome)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Refuse(Refusal refusal, absl::Status status)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TellHoldings(const model::ExpertSet& holdings)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Send(const v1::ExpertReply& reply) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SendBytes(const grpc::ByteBuffer& message)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndIfDrained() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops what is unsent and ends the stream.
  void End(absl::Status status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FinishIfQuiet() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ConnectionOptions options_;
  const GetServing get_serving_;
  Tag call_tag_{this, Op::kCall};
  Tag read_tag_{this, Op::kRead};
  Tag write_tag_{this, Op::kWrite};
  Tag finish_tag_{this, Op::kFinish};
  const std::shared_ptr<std::atomic<bool>> abandoned_;

  Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kWaitingForCall;
  std::unique_ptr<Rpc> rpc_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const ServingState> serving_ ABSL_GUARDED_BY(mutex_);
  uint32_t protocol_version_ ABSL_GUARDED_BY(mutex_) = 0;   // while kServing
  model::ExpertSet told_holdings_ ABSL_GUARDED_BY(mutex_);  // the same
  std::string peer_ ABSL_GUARDED_BY(mutex_);                // for the log
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finish_sent_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Time last_request_ ABSL_GUARDED_BY(mutex_);  // or drain's beginning
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  absl::Time hello_deadline_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();
  absl::Time writing_since_ ABSL_GUARDED_BY(mutex_);
  std::deque<grpc::ByteBuffer> unsent_ ABSL_GUARDED_BY(mutex_);
  // Of unsent_ and of the message that is being written.
  int64_t unsent_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t writing_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  // Sequence -> rows of requests that are being computed.
  std::unordered_map<uint64_t, int64_t> in_flight_ ABSL_GUARDED_BY(mutex_);
  int64_t rows_in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_CONNECTION_H_
