#include "router/text/xml_value.h"

#include "gtest/gtest.h"

namespace switchyard::router {
namespace {

XmlValueType Type(absl::string_view schema) {
  return XmlValueType::FromSchema(*ParseJson(schema));
}

TEST(XmlValueTest, Strings) {
  const XmlValueType type = Type(R"({"type": "string"})");
  EXPECT_EQ(type.ToJson("123"), "\"123\"");
  EXPECT_EQ(type.ToJson("null"), "\"null\"");
  EXPECT_EQ(type.ToJson("{\"a\": 1}\n"), R"("{\"a\": 1}\n")");
  EXPECT_EQ(type.ToJson(""), "\"\"");
  EXPECT_TRUE(type.IsText("n"));
}

TEST(XmlValueTest, Integers) {
  const XmlValueType type = Type(R"({"type": "integer"})");
  EXPECT_EQ(type.ToJson(" 42\n"), "42");
  EXPECT_EQ(type.ToJson("-007"), "-7");
  EXPECT_EQ(type.ToJson("+5"), "5");
  EXPECT_EQ(type.ToJson("-0"), "-0");
  EXPECT_EQ(type.ToJson("123456789012345678901234567890"),
            "123456789012345678901234567890");
  EXPECT_EQ(type.ToJson("3.5"), "\"3.5\"");
  EXPECT_EQ(type.ToJson("abc"), "\"abc\"");
  EXPECT_EQ(type.ToJson("NULL"), "null");
  EXPECT_FALSE(type.IsText("abc"));
}

TEST(XmlValueTest, Numbers) {
  const XmlValueType type = Type(R"({"type": "number"})");
  EXPECT_EQ(type.ToJson("2.50"), "2.50");
  EXPECT_EQ(type.ToJson("-1e-7"), "-1e-7");
  EXPECT_EQ(type.ToJson(".5"), "0.5");
  EXPECT_EQ(type.ToJson("5."), "5.0");
  EXPECT_EQ(type.ToJson("007"), "7");
  EXPECT_EQ(type.ToJson("inf"), "\"inf\"");
  EXPECT_EQ(type.ToJson("nan"), "\"nan\"");
  EXPECT_EQ(type.ToJson("0x10"), "\"0x10\"");
  EXPECT_EQ(type.ToJson("1.5.2"), "\"1.5.2\"");
}

TEST(XmlValueTest, BooleansObjectsAndArrays) {
  EXPECT_EQ(Type(R"({"type": "boolean"})").ToJson("True"), "true");
  EXPECT_EQ(Type(R"({"type": "boolean"})").ToJson("yes"), "\"yes\"");
  EXPECT_EQ(Type(R"({"type": "object"})").ToJson("{\"a\": [1]}"),
            "{\"a\": [1]}");
  EXPECT_EQ(Type(R"({"type": "object"})").ToJson("[1]"), "\"[1]\"");
  EXPECT_EQ(Type(R"({"type": "object"})").ToJson("{'a': 1}"), "\"{'a': 1}\"");
  EXPECT_EQ(Type(R"({"type": "array"})").ToJson("[1, \"x\"]"), "[1, \"x\"]");
}

TEST(XmlValueTest, Unions) {
  const XmlValueType nullable = Type(R"({"type": ["string", "null"]})");
  EXPECT_EQ(nullable.ToJson("null"), "null");
  EXPECT_EQ(nullable.ToJson("5"), "\"5\"");
  EXPECT_FALSE(nullable.IsText("nu"));
  EXPECT_FALSE(nullable.IsText("NULL"));
  EXPECT_TRUE(nullable.IsText("nul "));
  const XmlValueType any_of =
      Type(R"({"anyOf": [{"type": "integer"}, {"type": "string"}]})");
  EXPECT_EQ(any_of.ToJson("5"), "5");
  EXPECT_EQ(any_of.ToJson("five"), "\"five\"");
  EXPECT_EQ(any_of.ToJson("null"), "\"null\"");
  EXPECT_FALSE(any_of.IsText("f"));
}

TEST(XmlValueTest, UnknownTypes) {
  for (absl::string_view schema :
       {"{}", "null", R"({"$ref": "#/a"})", R"({"type": 7})",
        R"({"anyOf": [{"type": "string"}, {"$ref": "#/a"}]})"}) {
    const XmlValueType type = Type(schema);
    EXPECT_EQ(type.ToJson("{\"x\": 1}"), "{\"x\": 1}") << schema;
    EXPECT_EQ(type.ToJson("null"), "null") << schema;
    EXPECT_EQ(type.ToJson("plain"), "\"plain\"") << schema;
    EXPECT_EQ(type.ToJson("\"quoted\""), R"("\"quoted\"")") << schema;
    EXPECT_FALSE(type.IsText("p")) << schema;
  }
}

}  // namespace
}  // namespace switchyard::router
