// One call by its method's name, with messages as bytes: health and reflection
// have no generated code here.

#ifndef SWITCHYARD_TESTS_RPC_RAW_STREAM_H_
#define SWITCHYARD_TESTS_RPC_RAW_STREAM_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"

namespace switchyard::rpc {

// Used by one thread. Every step has to be done within `timeout` of the start.
class RawStream {
 public:
  // `method` is /package.Service/Method. Waits for the server to come up.
  RawStream(const std::shared_ptr<grpc::Channel>& channel,
            const std::string& method,
            absl::Duration timeout = absl::Minutes(1));
  ~RawStream();
  RawStream(const RawStream&) = delete;
  RawStream& operator=(const RawStream&) = delete;

  bool Write(absl::string_view message);
  // The next message; nullopt at the end of the stream.
  std::optional<std::string> Read();
  void Cancel() { context_.TryCancel(); }
  // After Read() said nullopt.
  absl::Status Finish();

 private:
  // False when the call is over.
  bool WaitForStep();

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  bool finished_ = false;
};

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_TESTS_RPC_RAW_STREAM_H_
