#include "tests/rpc/raw_stream.h"

#include <vector>

#include "absl/time/clock.h"
#include "base/check.h"
#include "grpcpp/support/slice.h"
#include "rpc/status_conversion.h"

namespace switchyard::rpc {

RawStream::RawStream(const std::shared_ptr<grpc::Channel>& channel,
                     const std::string& method, absl::Duration timeout) {
  context_.set_wait_for_ready(true);
  context_.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  call_ = grpc::GenericStub(channel).PrepareCall(&context_, method, &queue_);
  call_->StartCall(this);
  WaitForStep();
}

RawStream::~RawStream() {
  if (!finished_) {
    Cancel();
    static_cast<void>(Finish());
  }
  queue_.Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) {
  }
}

bool RawStream::Write(absl::string_view message) {
  const grpc::Slice slice(message.data(), message.size());
  call_->Write(grpc::ByteBuffer(&slice, 1), this);
  return WaitForStep();
}

std::optional<std::string> RawStream::Read() {
  grpc::ByteBuffer buffer;
  call_->Read(&buffer, this);
  if (!WaitForStep()) return std::nullopt;
  std::vector<grpc::Slice> slices;
  SY_CHECK(buffer.Dump(&slices).ok());
  std::string message;
  for (const grpc::Slice& slice : slices) {
    message.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return message;
}

absl::Status RawStream::Finish() {
  grpc::Status status;
  call_->Finish(&status, this);
  WaitForStep();
  finished_ = true;
  return FromGrpcStatus(status);
}

bool RawStream::WaitForStep() {
  void* tag = nullptr;
  bool ok = false;
  // The call's own deadline ends each step.
  SY_CHECK(queue_.Next(&tag, &ok));
  SY_CHECK(tag == this);
  return ok;
}

}  // namespace switchyard::rpc
