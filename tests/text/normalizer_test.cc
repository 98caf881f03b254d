#include "text/normalizer.h"

#include <utf8proc.h>

#include <cstdlib>
#include <random>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/text/test_files.h"
#include "text/utf8.h"

namespace switchyard::text {
namespace {

std::string Utf8procNfc(const std::string& text) {
  utf8proc_uint8_t* out = nullptr;
  const utf8proc_ssize_t size = utf8proc_map(
      reinterpret_cast<const utf8proc_uint8_t*>(text.data()), text.size(), &out,
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  EXPECT_GE(size, 0);
  std::string result(reinterpret_cast<char*>(out), size);
  std::free(out);
  return result;
}

TEST(NormalizerTest, Composes) {
  EXPECT_EQ(NormalizeNfc("e\xCC\x81", nullptr), "\xC3\xA9");
  EXPECT_EQ(NormalizeNfc("xe\xCC\x81y", nullptr), "x\xC3\xA9y");
  EXPECT_EQ(NormalizeNfc("\xCC\x81x", nullptr), "\xCC\x81x");
  EXPECT_EQ(NormalizeNfc("", nullptr), "");
  // U+1100 U+1161 U+11A8: Hangul.
  EXPECT_EQ(NormalizeNfc("\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", nullptr),
            "\xEA\xB0\x81");
  // U+2126 OHM SIGN becomes omega.
  EXPECT_EQ(NormalizeNfc("\xE2\x84\xA6", nullptr), "\xCE\xA9");
}

TEST(NormalizerTest, EqualsUtf8procOnRandomText) {
  std::vector<std::string> alphabet = {"a",  "e",        "o",       " ",
                                       "\n", "\xC3\xA9", "\xC5\xBF"};
  const auto add = [&](char32_t first, char32_t last) {
    for (char32_t c = first; c <= last; ++c) {
      AppendUtf8(c, &alphabet.emplace_back());
    }
  };
  add(0x300, 0x345);    // marks of several classes
  add(0x5B0, 0x5BD);    // Hebrew points
  add(0x1100, 0x1105);  // Hangul
  add(0x1161, 0x1165);
  add(0x11A8, 0x11AC);
  add(0xAC00, 0xAC05);
  add(0x1E00, 0x1E20);    // composed letters
  add(0x958, 0x95F);      // excluded from composition
  add(0x1D15E, 0x1D164);  // likewise, beyond the first plane
  add(0xF900, 0xF910);    // singletons
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    const std::string text =
        RandomText(alphabet, static_cast<int>(random() % 40), &random);
    ASSERT_EQ(NormalizeNfc(text, nullptr), Utf8procNfc(text)) << text;
  }
}

TEST(NormalizerTest, LongRunsOfMarksCostNearLinearWork) {
  // Two classes in turn: neighbour swaps would be quadratic.
  const auto steps_of = [](int pairs) {
    std::string text = "a";
    for (int i = 0; i < pairs; ++i) absl::StrAppend(&text, "\xCC\x81\xCC\xA3");
    int64_t steps = 0;
    NormalizeNfc(text, &steps);
    return steps;
  };
  const int64_t once = steps_of(50'000);
  const int64_t tenfold = steps_of(500'000);
  EXPECT_GT(once, 100'000);
  // n log n: 10 * 1.2.
  EXPECT_LT(tenfold, once * 14);
}

}  // namespace
}  // namespace switchyard::text
