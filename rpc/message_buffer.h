// Protobuf messages <-> grpc::ByteBuffer, for streams that read raw bytes:
// there a message that does not parse can be told from a stream that ended.

#ifndef SWITCHYARD_RPC_MESSAGE_BUFFER_H_
#define SWITCHYARD_RPC_MESSAGE_BUFFER_H_

#include "base/buffer_pool.h"
#include "base/byte_pieces.h"
#include "google/protobuf/message_lite.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/slice.h"

namespace switchyard::rpc {

// REQUIRES: message.ByteSizeLong() < 2 GiB, Protobuf's own limit.
grpc::ByteBuffer ToByteBuffer(const google::protobuf::MessageLite& message);

// False: the bytes are not such a message.
bool FromByteBuffer(grpc::ByteBuffer* buffer,
                    google::protobuf::MessageLite* message);

// What was received, without a copy; keeps it alive by itself.
BytePieces PiecesOf(const grpc::ByteBuffer& buffer);

// Without a copy: the memory goes back to its pool when gRPC has sent it.
grpc::Slice ToSlice(PooledBuffer buffer);

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_MESSAGE_BUFFER_H_
