#include "rpc/message_buffer.h"

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "base/check.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "grpcpp/support/proto_buffer_writer.h"

namespace switchyard::rpc {

grpc::ByteBuffer ToByteBuffer(const google::protobuf::MessageLite& message) {
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

bool FromByteBuffer(grpc::ByteBuffer* buffer,
                    google::protobuf::MessageLite* message) {
  grpc::ProtoBufferReader reader(buffer);
  return reader.status().ok() && message->ParseFromZeroCopyStream(&reader);
}

BytePieces PiecesOf(const grpc::ByteBuffer& buffer) {
  auto slices = std::make_shared<std::vector<grpc::Slice>>();
  // Fails for compressed messages only, which these channels do not make; a
  // peer that does so anyway has sent no message.
  if (!buffer.Dump(slices.get()).ok()) return BytePieces();
  std::vector<absl::Span<const char>> pieces;
  pieces.reserve(slices->size());
  for (const grpc::Slice& slice : *slices) {
    pieces.emplace_back(reinterpret_cast<const char*>(slice.begin()),
                        slice.size());
  }
  return BytePieces(std::move(pieces), std::move(slices));
}

grpc::Slice ToSlice(PooledBuffer buffer) {
  auto* const owned = new PooledBuffer(std::move(buffer));
  return grpc::Slice(
      owned->data(), owned->size(),
      [](void* held) { delete static_cast<PooledBuffer*>(held); }, owned);
}

}  // namespace switchyard::rpc
