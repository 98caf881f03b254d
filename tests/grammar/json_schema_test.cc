#include "grammar/json_schema.h"

#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/grammar/grammar_test_util.h"
#include "tests/testing/matchers.h"

namespace switchyard::grammar {
namespace {

struct Case {
  const char* schema;
  std::vector<std::string> in;
  std::vector<std::string> out;
};

std::vector<Case> Cases() {
  return {
      {R"({"type": "boolean"})", {"true", "false"}, {"null", "1", "tru", ""}},
      {R"({"type": ["null", "integer"]})",
       {"null", "0", "-1", "42"},
       {"1.0", "01", "-", "nul"}},
      {R"({"type": "number"})",
       {"0", "-0.5", "12.25", "1e5", "1E-07", "-3.0e+10"},
       {".5", "1.", "01", "+1", "1e", "1e100", "NaN"}},
      {R"({"type": "string"})",
       {R"("")", R"("é日本😀")", R"("a\n\"\\\/")", R"("\u00e9\ud83d\ude00")"},
       {R"(")", "\"\n\"", R"("\x")", R"("\ud83d")", R"("\ude00")", "\"\xC3\"",
        "\"\xC0\x80\"", "\"\xED\xA0\x80\""}},
      {R"({"type": "string", "minLength": 2, "maxLength": 3})",
       {R"("ab")", R"("abc")", R"("日本")", R"("\n\"")", R"("😀😀😀")"},
       {R"("a")", R"("abcd")", R"("日")"}},
      {R"({"type": "string", "pattern": "^[a-c]+\\d{2}$"})",
       {R"("a12")", R"("abc00")"},
       {R"("12")", R"("d12")", R"("a123")", R"("xa12")"}},
      {R"({"type": "string", "pattern": "b\""})",
       {R"("b\"")", R"("ab\"c")"},
       {R"("b")", R"("a")"}},
      {R"({"type": "string", "pattern": "^a*$", "maxLength": 2})",
       {R"("")", R"("aa")"},
       {R"("aaa")", R"("ab")"}},
      {R"({"type": "integer", "minimum": 5, "maximum": 123})",
       {"5", "9", "10", "99", "100", "123"},
       {"4", "124", "05", "-5", "1230", "5.0"}},
      {R"({"type": "integer", "minimum": -12, "exclusiveMaximum": 3})",
       {"-12", "-9", "-1", "0", "2"},
       {"3", "-13", "10", "-0", "-"}},
      {R"({"type": "integer", "maximum": -5})",
       {"-5", "-10", "-123456"},
       {"-4", "0", "5"}},
      {R"({"type": "integer", "exclusiveMinimum": 0})",
       {"1", "10", "999999"},
       {"0", "-1", "00"}},
      {R"({"type": "integer", "multipleOf": 7, "minimum": 0})",
       {"0", "7", "21", "700"},
       {"1", "8", "-7"}},
      {R"({"type": "number", "minimum": 0, "maximum": 1})",
       {"0", "1", "0.5", "0.999", "1.0", "0.0", "1.000"},
       {"1.1", "-0.5", "2", "1.0001", "10", "1e0"}},
      {R"({"type": "number", "exclusiveMinimum": 0.25, "maximum": 12.5})",
       {"0.26", "0.2500001", "0.3", "12.5", "12.50", "12", "1"},
       {"0.25", "0.250", "0.2", "12.51", "13", "0"}},
      {R"({"type": "number", "minimum": -1.5, "exclusiveMaximum": -0.5})",
       {"-1.5", "-1", "-0.51", "-1.49"},
       {"-0.5", "-1.51", "0", "-0.50", "-2"}},
      {R"({"type": "number", "multipleOf": 0.01, "minimum": 0})",
       {"0", "1.25", "10.5", "3"},
       {"1.255", "-1"}},
      {R"({"enum": ["a", 1, null, {"x": [1, 2]}]})",
       {R"("a")", "1", "null", R"({"x": [1, 2]})", R"({"x":[1,2]})"},
       {R"("b")", "2", "{}"}},
      {R"({"type": "string", "enum": ["a", 1, "bb"], "maxLength": 1})",
       {R"("a")"},
       {"1", R"("bb")"}},
      {R"({"const": "x\"y"})", {R"("x\"y")"}, {R"("xy")"}},
      {R"({"type": "object", "properties": {"a": {"type": "integer"},
           "b": {"type": "string"}}, "required": ["a", "b"],
           "additionalProperties": false})",
       {R"({"a": 1, "b": ""})", R"({"a":1,"b":"x"})",
        "{\n  \"a\": 1,\n  \"b\": \"\"\n}"},
       {R"({"a": 1})", R"({"b": "", "a": 1})", R"({"a": 1, "b": "", "c": 2})",
        R"({"a" : 1, "b": ""})", R"({"a": 1, "b": ""} )", "{}"}},
      {R"({"type": "object", "properties": {"a": {}, "b": {}, "c": {}},
           "required": ["b"]})",
       {R"({"b": 1})", R"({"a": {"q": []}, "b": 1})", R"({"b": 1, "c": 2})",
        R"({"a": 1, "b": 2, "c": 3})"},
       {"{}", R"({"a": 1})", R"({"b": 1, "a": 2})", R"({"b": 1,})",
        R"({"b": 1, "d": 2})"}},
      {R"({"type": "object", "properties": {"a": {"type": "null"}},
           "additionalProperties": {"type": "integer"}})",
       {"{}", R"({"a": null})", R"({"a": null, "b": 1})", R"({"x": 1, "y": 2})",
        R"({"aa": 1})", R"({"": 1})"},
       {R"({"a": 1})", R"({"x": null})", R"({"x": 1, "a": 1})",
        R"({"\u0061": 1})"}},
      {R"({"type": "object", "additionalProperties": {"type": "boolean"},
           "minProperties": 1, "maxProperties": 2})",
       {R"({"a": true})", R"({"a": true, "b": false})"},
       {"{}", R"({"a": true, "b": true, "c": true})", R"({"a": 1})"}},
      {R"({"patternProperties": {"^n_": {"type": "number"},
           "^s_": {"type": "string"}}, "additionalProperties": false})",
       {"{}", R"({"n_1": 1, "s_": "x"})", R"({"s_a": "", "s_b": ""})"},
       {R"({"n_": ""})", R"({"x": 1})"}},
      {R"({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}})",
       {"{}", R"({"abc": 1})"},
       {R"({"A": 1})", R"({"": 1})"}},
      {R"({"type": "object", "required": ["k"]})",
       {R"({"k": 1})", R"({"k": [], "z": 2})"},
       {"{}", R"({"z": 2})"}},
      {R"({"type": "array", "items": {"type": "integer"}, "minItems": 1,
           "maxItems": 3})",
       {"[1]", "[1, 2, 3]", "[1,2]", "[\n 1\n]"},
       {"[]", "[1, 2, 3, 4]", "[1,]", "[null]"}},
      {R"({"type": "array", "items": false})", {"[]"}, {"[1]"}},
      {R"({"type": "array", "prefixItems": [{"type": "integer"},
           {"type": "string"}], "minItems": 2})",
       {R"([1, "a"])"},
       {"[1]", R"(["a", 1])", R"([1, "a", 2])"}},
      {R"({"type": "array", "prefixItems": [{"type": "integer"}],
           "items": {"type": "boolean"}})",
       {"[]", "[1]", "[1, true, false]"},
       {"[true]", "[1, 2]"}},
      {R"({"anyOf": [{"type": "integer"}, {"type": "string"}]})",
       {"1", R"("a")"},
       {"null", "true"}},
      {R"({"type": "object", "properties": {"k": {"type": "string"}},
           "required": ["k"],
           "oneOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]},
                     {"properties": {"b": {"const": 2}}, "required": ["b"]}]})",
       {R"({"k": "", "a": 1})", R"({"k": "", "b": 2})"},
       {R"({"k": ""})", R"({"a": 1})"}},
      {R"({"allOf": [{"type": "integer", "minimum": 1},
           {"maximum": 3}, {"minimum": 2}]})",
       {"2", "3"},
       {"1", "4"}},
      {R"({"allOf": [{"$ref": "#/$defs/a"}, {"properties": {"y": {"type":
           "integer"}}, "required": ["y"]}], "$defs": {"a": {"type": "object",
           "properties": {"x": {"type": "integer"}}, "required": ["x"]}}})",
       {R"({"x": 1, "y": 2})"},
       {R"({"x": 1})", R"({"y": 2})"}},
      {R"({"$defs": {"node": {"type": "object", "properties": {"v": {"type":
           "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"},
           {"type": "null"}]}}, "required": ["v", "next"]}},
           "$ref": "#/$defs/node"})",
       {R"({"v": 1, "next": null})",
        R"({"v": 1, "next": {"v": 2, "next": {"v": 3, "next": null}}})"},
       {R"({"v": 1})", R"({"v": 1, "next": 2})"}},
      {R"({"type": "object", "properties": {"self": {"$ref": "#"}}})",
       {"{}", R"({"self": {"self": {}}})"},
       {R"({"self": 1})"}},
      {R"(true)",
       {"1", "null", R"([{"a": [true, {"b": null}]}, -1.5e3, ""])"},
       {"", "[", "{]", R"({"a"})", "[1 2]"}},
      {R"({"type": "string", "format": "date"})",
       {R"("2024-02-29")", R"("1999-12-31")"},
       {R"("2023-02-29")", R"("2024-13-01")", R"("24-01-01")"}},
      {R"({"type": "string", "format": "date-time"})",
       {R"("2024-01-31T23:59:59Z")", R"("2024-01-31T00:00:00.123+02:00")"},
       {R"("2024-01-31")", R"("2024-01-31T24:00:00Z")"}},
      {R"({"type": "string", "format": "ipv4"})",
       {R"("0.0.0.0")", R"("255.1.20.3")"},
       {R"("256.1.1.1")", R"("1.1.1")", R"("01.1.1.1")"}},
      {R"({"type": "string", "format": "ipv6"})",
       {R"("::")", R"("::1")", R"("1:2:3:4:5:6:7:8")", R"("fe80::1:2")"},
       {R"("1:2")", R"("1:2:3:4:5:6:7:8:9")", R"("1::2::3")"}},
      {R"({"type": "string", "format": "uuid"})",
       {R"("123e4567-e89b-12d3-a456-426614174000")"},
       {R"("123e4567e89b12d3a456426614174000")"}},
      {R"({"type": "string", "format": "email"})",
       {R"("a.b+c@example.com")"},
       {R"("a@")", R"("example.com")", R"("a b@c.d")"}},
      {R"({"type": "string", "format": "no such format"})", {R"("x")"}, {"1"}},
      {R"({"type": "string", "nullable": true})", {"null", R"("x")"}, {"1"}},
  };
}

TEST(JsonSchemaTest, TakesWhatIsValidAndNothingElse) {
  for (const Case& c : Cases()) {
    const auto grammar = Compile(GrammarKind::kJsonSchema, c.schema);
    ASSERT_THAT(grammar, testing::IsOk()) << c.schema;
    for (const std::string& text : c.in) {
      EXPECT_TRUE(Matches(*grammar, text)) << c.schema << "\n" << text;
    }
    for (const std::string& text : c.out) {
      EXPECT_FALSE(Matches(*grammar, text)) << c.schema << "\n" << text;
    }
  }
}

TEST(JsonSchemaTest, MasksAreWhatCanBeTaken) {
  std::mt19937 random(1);
  for (const Case& c : Cases()) {
    const auto grammar = Compile(GrammarKind::kJsonSchema, c.schema);
    ASSERT_THAT(grammar, testing::IsOk()) << c.schema;
    for (const std::string& text : c.in) {
      EXPECT_TRUE(MatchesInTokens(*grammar, text, &random)) << c.schema << "\n"
                                                            << text;
      if (HasFailure()) return;
    }
  }
}

TEST(JsonSchemaTest, ModelsThatChooseAtRandomWriteJson) {
  std::mt19937 random(2);
  for (const Case& c : Cases()) {
    // No random writer hits upon a pattern that may stand anywhere.
    if (std::string(c.schema).find("\"b") != std::string::npos &&
        std::string(c.schema).find("pattern") != std::string::npos) {
      continue;
    }
    const auto grammar = Compile(GrammarKind::kJsonSchema, c.schema);
    ASSERT_THAT(grammar, testing::IsOk()) << c.schema;
    for (int i = 0; i < 5; ++i) {
      const auto text = DrawText(*grammar, &random);
      ASSERT_TRUE(text.has_value()) << c.schema;
      EXPECT_THAT(ParseJson(*text), testing::IsOk()) << c.schema << "\n"
                                                     << *text;
      EXPECT_TRUE(Matches(*grammar, *text)) << c.schema << "\n" << *text;
    }
  }
}

TEST(JsonSchemaTest, RefusesWhatItCannotPromise) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type": "array", "uniqueItems": true})", "#/uniqueItems"},
      {R"({"properties": {"a": {"not": {}}}})", "#/properties/a/not"},
      {R"({"if": {}, "then": {}})", "#/if"},
      {R"({"$ref": "http://example.com/s"})", "#/$ref"},
      {R"({"$ref": "#/$defs/none"})", "#/$ref"},
      {R"j({"type": "string", "pattern": "(?=a)"})j", "#/pattern"},
      {R"({"type": "string", "pattern": "a\\b"})", "#/pattern"},
      {R"({"type": "integer", "multipleOf": 2000})", "#/multipleOf"},
      {R"({"type": "strange"})", "#/type"},
      {R"({"type": "integer", "minimum": "1"})", "#/minimum"},
      {R"({"type": "integer", "minimum": 1e300})", "#/minimum"},
      {R"({"items": 5})", "#/items"},
      {R"({"type": "string", "minLength": -1})", "#/minLength"},
      {R"({"anyOf": []})", "#/anyOf"},
      {R"({"$ref": "#"})", "leads back to itself"},
      {R"({"allOf": [{"$ref": "#"}]})", "references lead"},
      {R"({"$defs": {"a": {"$ref": "#/$defs/a", "minLength": 1}},
           "$ref": "#/$defs/a"})",
       ""},
      {R"({"type": "object", "properties": {"a": {"$ref": "#"}},
           "required": ["a"]})",
       "nothing can match"},
      {R"({"type": "integer", "minimum": 5, "maximum": 4})",
       "nothing can match"},
      {"false", "nothing can match"},
      {R"({"enum": []})", "nothing can match"},
      {R"j({"type": "string", "pattern": "^((((a{99}){99}){99}){99})$"})j",
       "too large"},
      {"[1", "JSON at byte 2"},
      {"3", "must be an object"},
  };
  for (const auto& [schema, message] : cases) {
    const auto grammar = Compile(GrammarKind::kJsonSchema, schema);
    ASSERT_FALSE(grammar.ok()) << schema;
    EXPECT_EQ(grammar.status().code(), absl::StatusCode::kInvalidArgument)
        << schema;
    EXPECT_THAT(std::string(grammar.status().message()),
                ::testing::HasSubstr(message))
        << schema;
  }
}

}  // namespace
}  // namespace switchyard::grammar
