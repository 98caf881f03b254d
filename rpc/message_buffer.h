// Protobuf messages <-> grpc::ByteBuffer, for streams that read raw bytes:
// there a message that does not parse can be told from a stream that ended.

#ifndef SWITCHYARD_RPC_MESSAGE_BUFFER_H_
#define SWITCHYARD_RPC_MESSAGE_BUFFER_H_

#include "base/check.h"
#include "google/protobuf/message_lite.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "grpcpp/support/proto_buffer_writer.h"

namespace switchyard::rpc {

// REQUIRES: message.ByteSizeLong() < 2 GiB, Protobuf's own limit.
inline grpc::ByteBuffer ToByteBuffer(
    const google::protobuf::MessageLite& message) {
  grpc::ByteBuffer buffer;
  const size_t size = message.ByteSizeLong();
  if (size == 0) {
    // A writer that was asked for nothing leaves an invalid buffer.
    grpc::Slice empty;
    return grpc::ByteBuffer(&empty, 1);
  }
  grpc::ProtoBufferWriter writer(
      &buffer, grpc::kProtoBufferWriterMaxBufferLength, static_cast<int>(size));
  SY_CHECK(message.SerializeToZeroCopyStream(&writer));
  return buffer;
}

// False: the bytes are not such a message.
inline bool FromByteBuffer(grpc::ByteBuffer* buffer,
                           google::protobuf::MessageLite* message) {
  grpc::ProtoBufferReader reader(buffer);
  return reader.status().ok() && message->ParseFromZeroCopyStream(&reader);
}

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_MESSAGE_BUFFER_H_
