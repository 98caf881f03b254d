// One gRPC stream to an expert worker: its operations, and how it ends.
//
// Above: grpc_expert_client.h says what is written, and understands what is
// read.

#ifndef SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_STREAM_H_
#define SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_STREAM_H_

#include <memory>

#include "absl/status/status.h"
#include "attention_worker/client/expert_io.h"
#include "base/hand_over.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"

namespace switchyard::attention_worker {

// Each kind of operation runs once at a time; whoever handles the queue's
// events says here when one has come back. kStart; then kRead and kWrite as
// often as wanted; End; and when all are back, kFinish. Unsynchronised;
// destroyed when kFinish has come back.
class ExpertStream {
 public:
  enum Op { kStart, kRead, kWrite, kFinish };
  // `tags[op]` for each Op; they outlive this.
  using Tags = ExpertIo::Tag[4];

  // Starts the call. Unless it waits until ready, it fails at once while nobody
  // listens at the channel's address.
  ExpertStream(grpc::GenericStub* stub, grpc::CompletionQueue* queue,
               Tags* tags, bool waits_for_ready);

  // A server has answered the call's beginning.
  bool reached() const { return reached_; }
  bool writing() const { return writing_; }

  // kStart, kRead or kWrite has come back. The message, if any, is received().
  void CameBack(Op op, bool ok);
  grpc::ByteBuffer* received() { return &received_; }

  // REQUIRES: reached, the last one is back, not ended.
  void Read();
  void Write(const grpc::ByteBuffer& message);

  // Starts nothing more, and kFinish once all is back. `cut`: does not wait for
  // the worker to end its side.
  void End(bool cut);

  // How the worker ended it. REQUIRES: kFinish has come back.
  absl::Status status() const;

 private:
  void FinishIfQuiet();
  // For an operation that is about to be started.
  void* TagOf(Op op) {
    HandOver(&(*tags_)[op]);
    return &(*tags_)[op];
  }

  Tags* const tags_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> rpc_;
  grpc::ByteBuffer received_;
  grpc::Status status_;
  bool reached_ = false;
  bool ended_ = false;
  // Operations that have not come back.
  bool starting_ = true;
  bool reading_ = false;
  bool writing_ = false;
  bool finishing_ = false;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_STREAM_H_
