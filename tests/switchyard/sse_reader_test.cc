#include "switchyard/chat/sse_reader.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kStream[] =
    ": keep-alive\n\n"
    "data: {\"a\": 1}\n\n"
    "event: x\r\ndata:no space\r\nid: 3\r\n\r\n"
    "data: two\ndata: lines\n\n"
    "data:\n\n"
    "data: [DONE]\n\n"
    "data: never completed\n";

const std::vector<std::string>& Expected() {
  static const auto* const events = new std::vector<std::string>{
      "{\"a\": 1}", "no space", "two\nlines", "", "[DONE]"};
  return *events;
}

TEST(SseReaderTest, ReadsEvents) {
  EXPECT_EQ(SseReader().Add(kStream), Expected());
}

TEST(SseReaderTest, GivesTheSameWhereverTheBytesAreCut) {
  const std::string stream = kStream;
  for (size_t cut = 0; cut <= stream.size(); ++cut) {
    SseReader reader;
    std::vector<std::string> events = reader.Add(stream.substr(0, cut));
    for (std::string& event : reader.Add(stream.substr(cut))) {
      events.push_back(std::move(event));
    }
    EXPECT_EQ(events, Expected()) << "cut at " << cut;
  }
}

TEST(SseReaderTest, CommentsAloneAreNoEvent) {
  EXPECT_THAT(SseReader().Add(": a\n\n: b\n\n"), IsEmpty());
  EXPECT_THAT(SseReader().Add(": a\n\ndata: b\n\n"), ElementsAre("b"));
}

}  // namespace
}  // namespace switchyard
