#include "rpc/payload_message.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "proto/expert.pb.h"

namespace switchyard::rpc {
namespace {

constexpr PayloadField kField = {
    .inner = v1::ExpertRequest::kComputeFieldNumber,
    .payload = v1::Compute::kActivationsFieldNumber};

v1::Compute Header() {
  v1::Compute compute;
  compute.set_sequence(7);
  compute.set_layer(300);
  compute.set_num_rows(2);
  compute.set_timeout_micros(1'000'000'000'000);
  v1::ExpertRun* const run = compute.add_runs();
  run->set_expert(500);
  for (uint32_t row = 0; row < 200; ++row) run->add_rows(row * 3);
  return compute;
}

std::string All(const BytePieces& pieces) {
  std::string all(pieces.size(), '?');
  pieces.CopyTo(0, all.size(), all.data());
  return all;
}

BytePieces Cut(const std::string& bytes, size_t size) {
  auto owner = std::make_shared<std::string>(bytes);
  std::vector<absl::Span<const char>> pieces;
  for (size_t at = 0; at < owner->size(); at += size) {
    pieces.push_back(absl::MakeConstSpan(*owner).subspan(at, size));
  }
  return BytePieces(std::move(pieces), std::move(owner));
}

TEST(PayloadMessageTest, IsAnOrdinaryMessage) {
  for (const size_t size : {0, 1, 127, 128, 20'000, 3'000'000}) {
    const std::string payload(size, '\x5a');
    v1::ExpertRequest request;
    ASSERT_TRUE(request.ParseFromString(
        EncodeBeforePayload(kField, Header(), size) + payload));
    EXPECT_EQ(request.compute().activations(), payload);
    request.mutable_compute()->clear_activations();
    EXPECT_EQ(request.compute().SerializeAsString(),
              Header().SerializeAsString());
  }
}

TEST(PayloadMessageTest, ComesApartHoweverItIsCut) {
  const std::string payload = "the payload, where the network put it";
  const std::string bytes =
      EncodeBeforePayload(kField, Header(), payload.size()) + payload;
  for (size_t size = 1; size <= bytes.size(); size += size < 20 ? 1 : 97) {
    const auto split = SplitPayload(Cut(bytes, size), kField);
    ASSERT_TRUE(split.has_value()) << size;
    EXPECT_EQ(split->inner, Header().SerializeAsString());
    EXPECT_EQ(All(split->payload), payload);
  }
}

TEST(PayloadMessageTest, ProtobufsOwnOrderComesApart) {
  v1::ExpertRequest request;
  *request.mutable_compute() = Header();
  request.mutable_compute()->set_activations("payload");
  const auto split =
      SplitPayload(BytePieces(request.SerializeAsString()), kField);
  ASSERT_TRUE(split.has_value());
  EXPECT_EQ(All(split->payload), "payload");
  v1::Compute compute;
  ASSERT_TRUE(compute.ParseFromString(split->inner));
  EXPECT_EQ(compute.SerializeAsString(), Header().SerializeAsString());
}

TEST(PayloadMessageTest, WithoutAPayload) {
  v1::ExpertRequest request;
  *request.mutable_compute() = Header();
  const auto split =
      SplitPayload(BytePieces(request.SerializeAsString()), kField);
  ASSERT_TRUE(split.has_value());
  EXPECT_EQ(split->payload.size(), 0);
}

TEST(PayloadMessageTest, OtherMessagesAreLeftToProtobuf) {
  EXPECT_FALSE(SplitPayload(BytePieces(), kField).has_value());
  v1::ExpertRequest hello;
  hello.mutable_hello()->set_protocol_version(2);
  EXPECT_FALSE(
      SplitPayload(BytePieces(hello.SerializeAsString()), kField).has_value());
  // Twice the inner message, or twice the payload: Protobuf merges them.
  v1::ExpertRequest request;
  request.mutable_compute()->set_activations("payload");
  const std::string once = request.SerializeAsString();
  EXPECT_TRUE(SplitPayload(BytePieces(once), kField).has_value());
  EXPECT_FALSE(SplitPayload(BytePieces(once + once), kField).has_value());
  const std::string inner = request.compute().SerializeAsString();
  EXPECT_FALSE(SplitPayload(BytePieces(once.substr(0, 1) +
                                       static_cast<char>(2 * inner.size()) +
                                       inner + inner),
                            kField)
                   .has_value());
}

TEST(PayloadMessageTest, EveryCutOffMessageIsLeftToProtobuf) {
  const std::string payload = "payload";
  const std::string bytes =
      EncodeBeforePayload(kField, Header(), payload.size()) + payload;
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(
        SplitPayload(BytePieces(bytes.substr(0, size)), kField).has_value());
  }
}

}  // namespace
}  // namespace switchyard::rpc
