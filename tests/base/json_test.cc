#include "base/json.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

// What goes in comes out; the tests' way to say "parses to".
std::string Reprint(absl::string_view text) {
  const absl::StatusOr<Json> value = ParseJson(text);
  return value.ok() ? DumpJsonLikePython(*value) : value.status().ToString();
}

TEST(JsonTest, KeepsOrderOfKeysAndTypes) {
  const absl::StatusOr<Json> value =
      ParseJson(R"({"b": [1, -2, 2.5, true, null], "a": {"x": "y"}, "c": {}})");
  ASSERT_THAT(value, IsOk());
  EXPECT_EQ(value->begin().key(), "b");
  EXPECT_TRUE((*value)["b"][0].is_number_integer());
  EXPECT_TRUE((*value)["b"][2].is_number_float());
  EXPECT_EQ((*value)["a"]["x"], "y");
  EXPECT_EQ(DumpJsonLikePython(*value),
            R"({"b": [1, -2, 2.5, true, null], "a": {"x": "y"}, "c": {}})");
  EXPECT_EQ(DumpJson(*value),
            R"({"b":[1,-2,2.5,true,null],"a":{"x":"y"},"c":{}})");
}

TEST(JsonTest, TopLevelValuesOfAnyKind) {
  for (const char* text : {"1", "\"a\"", "null", "true", "[]", "{}", "-1.5"}) {
    EXPECT_EQ(Reprint(text), text);
  }
  EXPECT_EQ(Reprint(" \t\r\n7 "), "7");
}

TEST(JsonTest, LastOfRepeatedKeysCountsInTheFirstPlace) {
  EXPECT_EQ(Reprint(R"({"a": 1, "b": 2, "a": {"c": 3}})"),
            R"({"a": {"c": 3}, "b": 2})");
}

TEST(JsonTest, RepeatedKeysOfLargeObjects) {
  // More keys than are compared one by one, repeated before and after.
  std::string text = R"({"k1": "old")";
  for (int i = 0; i < 100; ++i) absl::StrAppend(&text, ", \"k", i, "\": ", i);
  absl::StrAppend(&text, R"(, "k99": "new", "k0": "new", "z": 1, "z": 2})");
  const absl::StatusOr<Json> value = ParseJson(text);
  ASSERT_THAT(value, IsOk());
  EXPECT_THAT(*value, SizeIs(101));
  EXPECT_EQ(value->begin().key(), "k1");
  EXPECT_EQ((*value)["k1"], 1);
  EXPECT_EQ((*value)["k0"], "new");
  EXPECT_EQ((*value)["k50"], 50);
  EXPECT_EQ((*value)["k99"], "new");
  EXPECT_EQ((*value)["z"], 2);
}

// A vocabulary. Quadratic work would take minutes, beyond the test's limit.
TEST(JsonTest, LargeObjects) {
  constexpr int kKeys = 300'000;
  std::string text = "{";
  for (int i = 0; i < kKeys; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : ",", "\"token", i, "\":", i);
  }
  text += "}";
  const absl::StatusOr<Json> value = ParseJson(text);
  ASSERT_THAT(value, IsOk());
  ASSERT_THAT(*value, SizeIs(kKeys));
  int i = 0;
  for (const auto& [key, id] : value->get_ref<const Json::object_t&>()) {
    ASSERT_EQ(id, i);
    ASSERT_EQ(key, absl::StrCat("token", i));
    ++i;
  }
}

TEST(JsonTest, IntegersAreExact) {
  for (const char* text :
       {"0", "-1", "9223372036854775807", "-9223372036854775808",
        "9223372036854775808", "18446744073709551615",
        // Beyond 64 bits:
        "18446744073709551616", "-9223372036854775809",
        "123456789012345678901234567890", "-123456789012345678901234567890"}) {
    EXPECT_EQ(Reprint(text), text);
    EXPECT_EQ(DumpJson(*ParseJson(text)), text);
  }
  EXPECT_TRUE(ParseJson("18446744073709551615")->is_number_unsigned());
  EXPECT_TRUE(ParseJson("18446744073709551616")->is_binary());
  EXPECT_EQ(Reprint("[-0]"), "[0]");
  EXPECT_EQ(Reprint("1e2"), "100.0");  // not an integer, as in Python
}

// The right sides are what Python 3.11 prints.
TEST(JsonTest, FloatsAsPythonPrintsThem) {
  const std::vector<std::pair<double, std::string>> cases = {
      {0.0, "0.0"},
      {-0.0, "-0.0"},
      {1.0, "1.0"},
      {100.0, "100.0"},
      {0.1, "0.1"},
      {-2.5, "-2.5"},
      {0.7, "0.7"},
      {1234.5678, "1234.5678"},
      {0.0001, "0.0001"},
      {0.00012345, "0.00012345"},
      {0.00001, "1e-05"},
      {0.000012345, "1.2345e-05"},
      {1e-7, "1e-07"},
      {1e15, "1000000000000000.0"},
      {1e16, "1e+16"},
      {9007199254740993.0, "9007199254740992.0"},
      {123456789012345680.0, "1.2345678901234568e+17"},
      {1e22, "1e+22"},
      {1e100, "1e+100"},
      {1e-100, "1e-100"},
      {3.141592653589793, "3.141592653589793"},
      {1.0 / 3, "0.3333333333333333"},
      {5e-324, "5e-324"},
      {1.7976931348623157e308, "1.7976931348623157e+308"},
      {2e-5 + 1e-20, "2.0000000000000012e-05"},
  };
  for (const auto& [value, text] : cases) {
    EXPECT_EQ(DumpJsonLikePython(Json(value)), text);
  }
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(DumpJsonLikePython(Json(inf)), "Infinity");
  EXPECT_EQ(DumpJsonLikePython(Json(-inf)), "-Infinity");
  EXPECT_EQ(DumpJsonLikePython(Json(std::nan(""))), "NaN");
  EXPECT_EQ(DumpJson(Json(inf)), "null");  // DumpJson's is always JSON
}

TEST(JsonTest, StringsAreEscapedAsPythonDoes) {
  EXPECT_EQ(Reprint(R"("\" \\ \/ \b \f \n \r \t \u0001 \u001f \u007f")"),
            "\"\\\" \\\\ / \\b \\f \\n \\r \\t \\u0001 \\u001f \x7f\"");
  EXPECT_EQ(Reprint(R"("\u00e9\u4f60\ud83d\ude00")"), "\"é你😀\"");
  EXPECT_EQ(Reprint(R"("a\u0000b")"), R"("a\u0000b")");
  EXPECT_EQ(Reprint("{\"k\\n\": 1}"), "{\"k\\n\": 1}");
}

TEST(JsonTest, InvalidUtf8IsReplacedWhenPrinted) {
  const std::string replacement = "\xEF\xBF\xBD";
  const auto print = [](std::string bytes) {
    return DumpJson(Json(std::move(bytes)));
  };
  EXPECT_EQ(print("a\xFF z"), absl::StrCat("\"a", replacement, " z\""));
  EXPECT_EQ(print("\xE4\xBD"),  // the first two of three bytes
            absl::StrCat("\"", replacement, replacement, "\""));
  EXPECT_EQ(print("\xC0\x80"),  // overlong
            absl::StrCat("\"", replacement, replacement, "\""));
  EXPECT_EQ(print("\xED\xA0\x80"),  // a surrogate
            absl::StrCat("\"", replacement, replacement, replacement, "\""));
  EXPECT_EQ(print("\xF4\x8F\xBF\xBF"), "\"\xF4\x8F\xBF\xBF\"");  // U+10FFFF
  EXPECT_EQ(print("\xF4\x90\x80\x80"),
            absl::StrCat("\"", replacement, replacement, replacement,
                         replacement, "\""));
}

TEST(JsonTest, RefusesWhatIsNotJson) {
  for (const char* text : {"",
                           " ",
                           "{",
                           "[1,",
                           "[1,]",
                           "{\"a\"}",
                           "{\"a\":}",
                           "{a: 1}",
                           "'a'",
                           "01",
                           "1.",
                           ".5",
                           "+1",
                           "1e",
                           "0x10",
                           "tru",
                           "NaN",
                           "Infinity",
                           "-Infinity",
                           "[1] 2",
                           "\"a",
                           "\"\\x\"",
                           "\"\n\"",
                           "// c\n1",
                           "\"\\ud83d\"",
                           "\"\\udc00\"",
                           "1e999",
                           "\"\xFF\"",
                           "\"\xC0\x80\"",
                           "\"\xED\xA0\x80\"",
                           "{\"a\": 1, }"}) {
    EXPECT_THAT(ParseJson(text), StatusIs(kInvalid, HasSubstr("JSON at byte")))
        << text;
  }
  EXPECT_THAT(ParseJson(absl::string_view("1\0 x", 4)),
              StatusIs(kInvalid, HasSubstr("at byte 1: a NUL")));
}

TEST(JsonTest, ErrorsSayWhereAndStayShort) {
  EXPECT_THAT(ParseJson("[1, 2, x]"),
              StatusIs(kInvalid, AllOf(HasSubstr("at byte 7"),
                                       HasSubstr("invalid literal"),
                                       Not(HasSubstr("json.exception")))));
  const absl::Status status =
      ParseJson(absl::StrCat("\"", std::string(1 << 20, 'a'), "\xFF\""))
          .status();
  EXPECT_THAT(status, StatusIs(kInvalid));
  EXPECT_LT(status.message().size(), 250);
  for (const char c : status.message()) EXPECT_TRUE(c >= ' ' && c < 0x7f);
}

TEST(JsonTest, BoundsDepth) {
  const auto nested = [](int depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_THAT(ParseJson(nested(128)), IsOk());
  EXPECT_THAT(ParseJson(nested(129)),
              StatusIs(kInvalid, AllOf(HasSubstr("at byte 128"),
                                       HasSubstr("deeper than the 128"))));
  // Brackets in strings are none; the offset is right after them.
  JsonLimits two;
  two.max_depth = 2;
  EXPECT_THAT(ParseJson(R"({"[[\"[[": [1]})", two), IsOk());
  EXPECT_THAT(ParseJson(R"({"[[\"[[": [{}]})", two),
              StatusIs(kInvalid, HasSubstr("at byte 12")));
  EXPECT_THAT(ParseJson("[[], [], [[1]]]", two),
              StatusIs(kInvalid, HasSubstr("at byte 10")));
  // A hostile one costs neither the stack nor much time.
  EXPECT_THAT(ParseJson(std::string(1 << 20, '[')), StatusIs(kInvalid));
}

TEST(JsonTest, BoundsSize) {
  JsonLimits limits;
  limits.max_bytes = 5;
  EXPECT_THAT(ParseJson("[1,2]", limits), IsOk());
  EXPECT_THAT(ParseJson("[1,22]", limits),
              StatusIs(kInvalid, AllOf(HasSubstr("6 bytes"), HasSubstr("5"))));
}

}  // namespace
}  // namespace switchyard
