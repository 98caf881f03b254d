#include "text/utf8.h"

#include "gtest/gtest.h"

namespace switchyard::text {
namespace {

TEST(Utf8Test, DecodesTheEdgesOfEveryLength) {
  for (const char32_t c :
       {char32_t{0}, char32_t{0x7F}, char32_t{0x80}, char32_t{0x7FF},
        char32_t{0x800}, char32_t{0xD7FF}, char32_t{0xE000}, char32_t{0xFFFF},
        char32_t{0x10000}, char32_t{0x10FFFF}}) {
    std::string text;
    AppendUtf8(c, &text);
    const Utf8Character decoded = DecodeUtf8(text);
    EXPECT_EQ(decoded.kind, Utf8Character::Kind::kValid);
    EXPECT_EQ(decoded.code_point, c);
    EXPECT_EQ(static_cast<size_t>(decoded.length), text.size());
  }
}

// Unicode 15.0, table 3-8 and the examples around it.
TEST(Utf8Test, ReplacesEachMaximalInvalidSubpart) {
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(ReplaceInvalidUtf8("a\xF1\x80\x80\xE1\x80\xC2"
                               "b\x80"
                               "c\x80\xBF"
                               "d"),
            "a" + r + r + r + "b" + r + "c" + r + r + "d");
  EXPECT_EQ(ReplaceInvalidUtf8("\xC0\xAF"), r + r) << "overlong";
  EXPECT_EQ(ReplaceInvalidUtf8("\xE0\x80\xAF"), r + r + r) << "overlong";
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), r + r + r) << "surrogate";
  EXPECT_EQ(ReplaceInvalidUtf8("\xF4\x90\x80\x80"), r + r + r + r)
      << "beyond U+10FFFF";
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\x98"), r) << "cut off at the end";
  EXPECT_FALSE(IsValidUtf8("\xF0\x9F\x98"));
  EXPECT_TRUE(IsValidUtf8("\xF0\x9F\x98\x80"));
}

TEST(Utf8Test, TellsIncompleteFromInvalid) {
  EXPECT_EQ(DecodeUtf8("\xF0\x9F").kind, Utf8Character::Kind::kIncomplete);
  EXPECT_EQ(DecodeUtf8("\xF0\x8F").kind, Utf8Character::Kind::kInvalid);
}

}  // namespace
}  // namespace switchyard::text
