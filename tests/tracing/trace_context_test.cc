#include "tracing/span/trace_context.h"

#include <cstdint>
#include <string>

#include "gtest/gtest.h"

namespace switchyard::tracing {
namespace {

// The example of the standard.
constexpr char kExample[] =
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(TraceContextTest, ReadsAndWritesTheHeader) {
  const auto context = ParseTraceparent(kExample);
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->trace_high, 0x0af7651916cd43ddu);
  EXPECT_EQ(context->trace_low, 0x8448eb211c80319cu);
  EXPECT_EQ(context->span, 0xb7ad6b7169203331u);
  EXPECT_TRUE(context->sampled);
  EXPECT_EQ(FormatTraceparent(*context), kExample);
  EXPECT_FALSE(ParseTraceparent(
                   "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00")
                   ->sampled);
  // Other flags than the lowest mean nothing yet.
  EXPECT_TRUE(ParseTraceparent(
                  "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff")
                  ->sampled);
}

TEST(TraceContextTest, LaterVersionsAreReadAsFarAsKnown) {
  EXPECT_TRUE(
      ParseTraceparent(
          "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what")
          .has_value());
  EXPECT_FALSE(
      ParseTraceparent(
          "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what")
          .has_value());
}

TEST(TraceContextTest, WhatIsNone) {
  for (const char* header :
       {"", "00", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}) {
    EXPECT_FALSE(ParseTraceparent(header).has_value()) << header;
  }
}

TEST(TraceContextTest, ChildrenStayInTheTrace) {
  uint64_t next = 0;
  const auto random = [&] { return next++; };  // 0 first: no id
  const TraceContext root = NewTrace(true, random);
  EXPECT_TRUE(root.valid());
  const TraceContext child = ChildOf(root, random);
  EXPECT_TRUE(child.valid());
  EXPECT_EQ(child.trace_high, root.trace_high);
  EXPECT_EQ(child.trace_low, root.trace_low);
  EXPECT_NE(child.span, root.span);
  EXPECT_TRUE(child.sampled);
}

}  // namespace
}  // namespace switchyard::tracing
