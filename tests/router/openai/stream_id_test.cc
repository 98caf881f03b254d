#include "router/openai/stream_id.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

StreamId Stream() {
  return {.answer = "0123456789abcdef01234567",
          .created = 1'700'000'000,
          .seed = 0xfedcba9876543210,
          .request = "89abcdef"};
}

TEST(StreamIdTest, SurvivesItsText) {
  for (const StreamPosition& position :
       {StreamPosition{.stream = Stream(), .events = {0}, .cached_tokens = {}},
        StreamPosition{.stream = Stream(), .events = {12}, .cached_tokens = 7},
        StreamPosition{
            .stream = Stream(), .events = {3, 0, 41}, .cached_tokens = {}},
        StreamPosition{.stream = Stream(),
        .events = {12},
        .usage_sent = true,
        .cached_tokens = 0}}) {
    const std::string text = FormatEventId(position);
    EXPECT_THAT(text, HasSubstr(FormatStreamId(Stream())));
    const auto parsed = ParseEventId(text);
    ASSERT_THAT(parsed, IsOk()) << text;
    EXPECT_EQ(*parsed, position) << text;
  }
}

TEST(StreamIdTest, WhatNobodyWrote) {
  const std::string good =
      FormatEventId({.stream = Stream(), .events = {12}, .cached_tokens = 7});
  for (const std::string& bad :
       {std::string(), std::string("12"), FormatStreamId(Stream()),
        FormatStreamId(Stream()) + "-", FormatStreamId(Stream()) + "-x",
        FormatStreamId(Stream()) + "-u", FormatStreamId(Stream()) + "-1.u.2",
        FormatStreamId(Stream()) + "--1", FormatStreamId(Stream()) + "-1-",
        "x" + good, good + "x", good + "-1", good.substr(1),
        good + std::string(5000, '1')}) {
    EXPECT_THAT(ParseEventId(bad), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr("Last-Event-ID")))
        << bad;
  }
}

TEST(StreamIdTest, DigestIsOfBodyAndModel) {
  const std::string digest = RequestDigest("body", "model");
  EXPECT_EQ(digest.size(), 8u);
  EXPECT_EQ(RequestDigest("body", "model"), digest);
  EXPECT_NE(RequestDigest("body ", "model"), digest);
  EXPECT_NE(RequestDigest("body", "other"), digest);
}

}  // namespace
}  // namespace switchyard::router
