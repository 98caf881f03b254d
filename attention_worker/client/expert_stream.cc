#include "attention_worker/client/expert_stream.h"

#include "base/check.h"
#include "rpc/status_conversion.h"

namespace switchyard::attention_worker {
namespace {

constexpr char kConnectMethod[] = "/switchyard.v1.Expert/Connect";

}  // namespace

ExpertStream::ExpertStream(grpc::GenericStub* stub,
                           grpc::CompletionQueue* queue, Tags* tags,
                           bool waits_for_ready)
    : tags_(tags) {
  context_.set_wait_for_ready(waits_for_ready);
  rpc_ = stub->PrepareCall(&context_, kConnectMethod, queue);
  rpc_->StartCall(TagOf(kStart));
}

void ExpertStream::CameBack(Op op, bool ok) {
  switch (op) {
    case kStart:
      starting_ = false;
      reached_ = ok;
      break;
    case kRead:
      reading_ = false;
      break;
    case kWrite:
      writing_ = false;
      break;
    case kFinish:
      return;
  }
  if (ended_) FinishIfQuiet();
}

void ExpertStream::Read() {
  SY_DCHECK(reached_ && !reading_ && !ended_);
  reading_ = true;
  rpc_->Read(&received_, TagOf(kRead));
}

void ExpertStream::Write(const grpc::ByteBuffer& message) {
  SY_DCHECK(reached_ && !writing_ && !ended_);
  writing_ = true;
  rpc_->Write(message, TagOf(kWrite));
}

void ExpertStream::End(bool cut) {
  if (cut) context_.TryCancel();
  ended_ = true;
  FinishIfQuiet();
}

void ExpertStream::FinishIfQuiet() {
  if (starting_ || reading_ || writing_ || finishing_) return;
  finishing_ = true;
  rpc_->Finish(&status_, TagOf(kFinish));
}

absl::Status ExpertStream::status() const {
  return rpc::FromGrpcStatus(status_);
}

}  // namespace switchyard::attention_worker
