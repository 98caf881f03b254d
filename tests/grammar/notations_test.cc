// Regular expressions, EBNF, tool calls and structural tags.

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/grammar/grammar_test_util.h"
#include "tests/testing/matchers.h"

namespace switchyard::grammar {
namespace {

struct Case {
  std::string grammar;
  std::vector<std::string> in;
  std::vector<std::string> out;
};

// `write`: also what a random writer writes, where one comes to an end.
void Check(GrammarKind kind, const std::vector<Case>& cases,
           bool write = true) {
  std::mt19937 random(3);
  for (const Case& c : cases) {
    const auto grammar = Compile(kind, c.grammar);
    ASSERT_THAT(grammar, testing::IsOk()) << c.grammar;
    for (const std::string& text : c.in) {
      EXPECT_TRUE(Matches(*grammar, text)) << c.grammar << "\n" << text;
      EXPECT_TRUE(MatchesInTokens(*grammar, text, &random)) << c.grammar << "\n"
                                                            << text;
      if (::testing::Test::HasFailure()) return;
    }
    for (const std::string& text : c.out) {
      EXPECT_FALSE(Matches(*grammar, text)) << c.grammar << "\n" << text;
    }
    for (int i = 0; write && i < 3; ++i) {
      const auto text = DrawText(*grammar, &random);
      ASSERT_TRUE(text.has_value()) << c.grammar;
      EXPECT_TRUE(Matches(*grammar, *text)) << *text;
    }
  }
}

TEST(NotationsTest, RegularExpressions) {
  Check(GrammarKind::kRegex,
        {{"abc", {"abc"}, {"", "ab", "abcd"}},
         {"^(a|b)*c$", {"c", "abbac"}, {"ab", "cc"}},
         {"a{2,3}b{2}c{1,}d?", {"aabbc", "aaabbccd"}, {"abbc", "aabbbc"}},
         {"[^a-y\\n]", {"z", "é", "日", "😀"}, {"a", "\n", ""}},
         {"[]a-]+", {"]", "a-]"}, {"b"}},
         {"\\d{3}-\\w+\\s", {"123-a_Z9 ", "123-x\t"}, {"12-a ", "123- "}},
         {"[\\d.]+|x{,2}", {"1.5", "", "xx"}, {"xxx", "1x"}},
         {"(?:yes|no)(?P<n>!)?", {"yes", "no!"}, {"maybe"}},
         {"\\u00e9\\x41\\u{1F600}\\ud83d\\ude00", {"éA😀😀"}, {"e"}},
         {"a{,}b{x}", {"a{,}b{x}"}, {"ab"}},
         {"-?(0|[1-9]\\d*)(\\.\\d{1,3})?", {"0", "-12.5"}, {"01", "1."}},
         {".{0,3}", {"", "日本語", "a b"}, {"abcd", "\n"}},
         {"(a|aa)+b??", {"aaaa", "aab"}, {"b"}},
         {"", {""}, {"a"}}});
}

TEST(NotationsTest, RefusedExpressions) {
  for (const char* pattern :
       {"(?=a)b", "(?<!a)b", "a\\1", "a\\b", "\\p{L}", "(a", "a)", "[a", "a**",
        "*a", "a{3,2}", "[z-a]", "(?i)a", "a\\", "x^y", "(^a)", "\\ud83d",
        "((((a{50}){50}){50}){50})", "\xFF"}) {
    const auto grammar = Compile(GrammarKind::kRegex, pattern);
    EXPECT_EQ(grammar.status().code(), absl::StatusCode::kInvalidArgument)
        << pattern;
  }
  EXPECT_FALSE(Compile(GrammarKind::kRegex, std::string(100'000, '(')).ok());
  EXPECT_TRUE(Compile(GrammarKind::kRegex, std::string(50'000, '{')).ok());
}

TEST(NotationsTest, Ebnf) {
  Check(GrammarKind::kEbnf,
        {{"root ::= \"a\" rest # comment\nrest ::= [0-9]+ |\n  \"x\\n\"{2,3}",
          {"a12", "ax\nx\n"},
          {"a", "ax\n"}},
         {"root ::= \"(\" root? \")\"", {"()", "((()))"}, {"(()", "())", ""}},
         {"root ::= expr\nexpr ::= term (\"+\" term)*\n"
          "term ::= [a-z] | \"(\" expr \")\"",
          {"a", "a+(b+c)+d"},
          {"a+", "(a"}},
         {"list ::= \"a\" | \"a,\" list\nroot ::= list",
          {"a", "a,a,a,a,a,a,a"},
          {"a,", ""}},
         {"root ::= a b\na ::= \"a\"*\nb ::= \"b\"?", {"", "aa", "ab"}, {"ba"}},
         {"root ::= . [^\"\\\\]", {"éx", "\n日"}, {"a\""}}});
  for (const char* text :
       {"root ::= root \"a\" | \"a\"", "root ::= a\na ::= b\nb ::= a",
        "a ::= \"a\"", "root ::= missing", "root ::= \"a", "root = \"a\"",
        "root ::= \"a\"\nroot ::= \"b\"", "root ::= (\"a\"", "",
        "root ::= \"\"* root"}) {
    EXPECT_EQ(Compile(GrammarKind::kEbnf, text).status().code(),
              absl::StatusCode::kInvalidArgument)
        << text;
  }
}

// Right recursion and recursion through nesting are of unlike depth.
TEST(NotationsTest, ListsOfAnyLengthAndNestingWithinBounds) {
  const auto list = Compile(GrammarKind::kEbnf, "root ::= \"a\" | \"a,\" root");
  ASSERT_THAT(list, testing::IsOk());
  std::string text = "a";
  for (int i = 0; i < 10'000; ++i) text += ",a";
  EXPECT_TRUE(Matches(*list, text));
  const auto nested = Compile(GrammarKind::kJsonSchema, "true");
  ASSERT_THAT(nested, testing::IsOk());
  const auto brackets = [](int depth) {
    return std::string(depth, '[') + "1" + std::string(depth, ']');
  };
  EXPECT_TRUE(Matches(*nested, brackets(90)));
  EXPECT_FALSE(Matches(*nested, brackets(200)));
  // As deep as can be, and every bracket still gets its other half.
  Matcher matcher(*nested);
  std::string open;
  while (matcher.Accept("[")) open += '[';
  EXPECT_GE(open.size(), 90u);
  std::mt19937 random(4);
  EXPECT_TRUE(
      MatchesInTokens(*nested, open + std::string(open.size(), ']'), &random));
}

constexpr char kTools[] =
    R"("tools": [{"name": "add", "parameters": {"type": "object", "properties":
       {"a": {"type": "integer"}, "b": {"type": "integer"}},
       "required": ["a", "b"]}}, {"name": "say", "parameters": {"type":
       "object", "properties": {"text": {"type": "string"}, "loud": {"type":
       "boolean"}, "tone": {"enum": ["dry", "warm"]}, "to": {"type": "array",
       "items": {"type": "string"}}}, "required": ["text"]}},
       {"name": "now"}])";

TEST(NotationsTest, JsonToolCalls) {
  const std::string add =
      "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": "
      "2}}\n</tool_call>";
  const std::string now =
      "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
  const std::string begin = std::string("{\"format\": \"json\", ") + kTools;
  Check(
      GrammarKind::kToolCalls,
      {{begin + "}",
        {add, now, add + "\n" + now},
        {"", "text", "text" + add, add + "text",
         "<tool_call>\n{\"name\": \"sub\", \"arguments\": {}}\n</tool_call>",
         "<tool_call>\n{\"name\": \"add\", \"arguments\": {}}\n</tool_call>"}},
       {begin + ", \"parallel\": false}", {add, now}, {add + "\n" + now}},
       {begin + ", \"free_text\": true}",
        {"", "some <tool text", "text\n\n" + add, add + now + "\nmore"},
        {"a <tool_call>", "<tool_call>no</tool_call>"}}});
}

TEST(NotationsTest, XmlToolCalls) {
  const std::string add =
      "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n"
      "<parameter=b>\n-2\n</parameter>\n</function>\n</tool_call>";
  const auto say = [](const std::string& inside) {
    return "<tool_call>\n<function=say>\n" + inside +
           "</function>\n</tool_call>";
  };
  const auto parameter = [](const std::string& name, const std::string& text) {
    return "<parameter=" + name + ">\n" + text + "\n</parameter>\n";
  };
  const std::string begin = std::string("{\"format\": \"xml\", ") + kTools;
  Check(GrammarKind::kToolCalls,
        {{begin + "}",
          {add, say(parameter("text", "any\n<text> \"at\" all")),
           say(parameter("text", "")),
           say(parameter("text", "x") + parameter("loud", "true") +
               parameter("tone", "warm") + parameter("to", "[\"a\", \"b\"]")),
           add + "\n" + add,
           "<tool_call>\n<function=now>\n</function>\n</tool_call>",
           "<tool_call>\n<function=now>\n<parameter=x>\ny\n</parameter>\n"
           "</function>\n</tool_call>"},
          {"", say(""), say(parameter("loud", "true")),
           say(parameter("text", "a</parameter>b")),
           say(parameter("text", "x") + parameter("tone", "cold")),
           say(parameter("text", "x") + parameter("loud", "yes"))}},
         {begin + ", \"free_text\": true}",
          {"words", "words " + add + " words"},
          {"<tool_call>"}}},
        /*write=*/false);
}

TEST(NotationsTest, StrictToolsTellWhatCannotBePromised) {
  const std::string tools =
      R"({"format": "json", "tools": [{"name": "f", "parameters": {"type":
         "object", "properties": {"s": {"type": "array", "uniqueItems": true}}},
         "strict": )";
  EXPECT_THAT(Compile(GrammarKind::kToolCalls, tools + "false}]}"),
              testing::IsOk());
  const auto strict = Compile(GrammarKind::kToolCalls, tools + "true}]}");
  ASSERT_FALSE(strict.ok());
  EXPECT_THAT(
      std::string(strict.status().message()),
      ::testing::HasSubstr("tool f: parameters/properties/s/uniqueItems"));
}

std::string TagOf(const std::string& format) {
  return R"({"type": "structural_tag", "format": )" + format + "}";
}

TEST(NotationsTest, StructuralTagsAsTheyWereFirst) {
  const std::string text = R"({"type": "structural_tag", "structures": [
      {"begin": "<f=a>", "schema": {"type": "integer"}, "end": "</f>"},
      {"begin": "<f=b>", "schema": {"type": "object", "properties": {"x": {
          "$ref": "#/$defs/x"}}, "required": ["x"], "$defs": {"x": {"enum":
          [1, "</f>"]}}}, "end": "</f>"},
      {"begin": "{g:", "schema": null, "end": "}"}],
      "triggers": ["<f", "{g"]})";
  Check(GrammarKind::kStructuralTag,
        {{text,
          {"", "any <text { of <g>", "<f=a>12</f>",
           "so: <f=a>-3</f><f=b>{\"x\": \"</f>\"}</f> and {g:[true]}.",
           "<<f=a>0</f>", "<f=a>1</f></f>"},
          {"<f", "a <f=", "<f=c>1</f>", "<f=a>x</f>", "<f=a>1</f", "{g",
           "<f=b>{\"x\": 2}</f>", "<f=a>1</f> <f"}}});
}

TEST(NotationsTest, StructuralTagsOfOneFormat) {
  Check(GrammarKind::kStructuralTag,
        {{TagOf(R"({"type": "const_string", "value": "a\"é"})"),
          {"a\"é"},
          {"", "a\"", "a\"éx"}},
         {TagOf(R"({"type": "json_schema", "json_schema": {"enum": [1, 2]},
                  "style": "json", "any_order": false})"),
          {"1", "2"},
          {"3", "12"}},
         {TagOf(R"({"type": "regex", "pattern": "[a-c]+x?"})"), {"abx"}, {"x"}},
         {TagOf(R"({"type": "grammar",
                  "grammar": "root ::= \"(\" root \")\" | \"1\""})"),
          {"1", "((1))"},
          {"(1"}},
         {TagOf(R"({"type": "any_text", "excludes": ["ab", "c"]})"),
          {"", "a", "b a!"},
          {"ab", "xaab", "c"}},
         {TagOf(R"({"type": "or", "elements": [
                  {"type": "const_string", "value": "yes"},
                  {"type": "sequence", "elements": [
                    {"type": "const_string", "value": "no"},
                    {"type": "optional", "content": {
                      "type": "regex", "pattern": "[!?]"}}]}]})"),
          {"yes", "no", "no!"},
          {"yes!", "n"}},
         {TagOf(R"({"type": "sequence", "elements": [
                  {"type": "plus", "content": {"type": "regex", "pattern": "a|bb"}},
                  {"type": "star", "content": {"type": "regex", "pattern": "c"}},
                  {"type": "repeat", "min": 1, "max": 2, "content": {
                    "type": "const_string", "value": "d"}}]})"),
          {"abbad", "accdd"},
          {"cd", "ab", "addd"}},
         // Two grammars have rules of the same names.
         {TagOf(R"({"type": "sequence", "elements": [
                  {"type": "grammar", "grammar": "root ::= x x\nx ::= \"1\""},
                  {"type": "grammar", "grammar": "root ::= x\nx ::= \"2\""}]})"),
          {"112"},
          {"11", "222", "12"}}});
}

TEST(NotationsTest, StructuralTagsWithEnds) {
  const std::string think =
      R"({"type": "tag", "begin": "<t>", "content": {"type": "any_text"},
          "end": ["</t>", "</>"]})";
  Check(GrammarKind::kStructuralTag,
        {{TagOf(think),
          {"<t></t>", "<t>a<</t>", "<t></</>"},
          {"<t>", "<t></t></t>", "</t>", "<t></>a</t>"}},
         {TagOf(R"({"type": "sequence", "elements": [)" + think +
                R"(, {"type": "const_string", "value": "."}]})"),
          {"<t>a.</t>."},
          {"<t>a.</t>", "<t></t>.</t>."}},
         // What is free before the end of a tag has none of it either.
         {TagOf(R"J({"type": "tag", "begin": "(", "end": ")", "content": {
                    "type": "sequence", "elements": [
                    {"type": "any_text", "excludes": ["!"]},
                    {"type": "const_string", "value": "x"},
                    {"type": "or", "elements": [{"type": "any_text"},
                      {"type": "const_string", "value": ")"}]}]}})J"),
          {"(x)", "(aax)", "(xx.!)", "(x))"},
          {"(a)", "(!x)", "(a)x)", "(x)y)"}},
         {TagOf(R"({"type": "tag", "begin": "[", "content": )" + think +
                R"(, "end": "]"})"),
          {"[<t>]</t>]"},
          {"[<t>]</t>", "[<t>]"}},
         {TagOf(R"({"type": "tag", "begin": "n:", "end": "", "content":
                    {"type": "regex", "pattern": "\\d+"}})"),
          {"n:12"},
          {"n:"}}},
        /*write=*/false);
}

TEST(NotationsTest, StructuralTagsBehindTriggers) {
  const auto triggered = [](const std::string& more) {
    return TagOf(R"({"type": "triggered_tags", "triggers": ["<f"], "tags": [
        {"type": "tag", "begin": "<f1>", "end": "</f>", "content": {
          "type": "regex", "pattern": "[a-z]+"}},
        {"begin": "<f2>", "end": "</f>", "content": {"type": "any_text"}}])" +
                 more + "}");
  };
  const std::string a = "<f1>ab</f>", b = "<f2><f</f>";
  Check(GrammarKind::kStructuralTag,
        {{triggered(""),
          {"", "x <", a, "x" + a + b + "y</f>"},
          {"<f", "<f3></f>"}},
         {triggered(R"(, "at_least_one": true)"),
          {a, b + " and " + a + "."},
          {"", "x" + a}},
         {triggered(R"(, "stop_after_first": true)"),
          {"", "x", a, "x" + b},
          {a + a, a + "x"}},
         {triggered(R"(, "stop_after_first": true, "at_least_one": true)"),
          {a, b},
          {"", "x" + a, a + a, a + "x"}},
         {triggered(R"(, "excludes": ["!", "<t"])"),
          {"x" + a + "y", "<f2>!</f>"},
          {"x!", "<t"}},
         // Within a tag its end is none of the free text.
         {TagOf(R"({"type": "tag", "begin": "<r>", "end": "</r>", "content": {
           "type": "triggered_tags", "triggers": ["<f"], "tags": [{"begin":
           "<f>", "end": "</f>", "content": {"type": "any_text"}}]}})"),
          {"<r></r>", "<r>a<f></r></f>b</r>"},
          {"<r>a</r>b</r>", "<r><f></f>"}},
         {TagOf(R"({"type": "dispatch", "excludes": ["end"], "rules": [
           ["a:", {"type": "regex", "pattern": "\\d"}],
           ["aa:", {"type": "const_string", "value": "!"}]]})"),
          {"", "a:1", "b a:1a:2", "aa:!", "xaa:!a:3"},
          {"a:", "aa:1", "the end"}},
         {TagOf(R"({"type": "dispatch", "loop": false, "rules": [
           ["a", {"type": "const_string", "value": "b"}]]})"),
          {"", "x", "xab"},
          {"xabx", "xa"}},
         {TagOf(R"({"type": "tags_with_separator", "separator": ", ", "tags": [
           {"begin": "<", "end": ">", "content": {"type": "any_text"}}]})"),
          {"", "<a>", "<a>, <>"},
          {"<a><b>", "<a>, ", "x"}},
         {TagOf(R"({"type": "tags_with_separator", "separator": ",",
           "at_least_one": true, "stop_after_first": true, "tags": [
           {"begin": "<", "end": ">", "content": {"type": "any_text"}}]})"),
          {"<a>"},
          {"", "<a>,<b>"}}},
        /*write=*/false);
}

TEST(NotationsTest, StructuralTagsOfXmlParameters) {
  const std::string schema = R"("json_schema": {"type": "object",
    "properties": {"text": {"type": "string"}, "count": {"type": "integer"},
                   "tone": {"enum": ["warm", "dry"]}},
    "required": ["text"]})";
  const std::vector<std::string> right = {
      "<function=f><parameter=text>a < b</parameter></function>",
      "<function=f>\n<parameter=text>\nany\n</parameter>\n"
      "<parameter=count>\n-7\n</parameter>\n</function>",
      "<function=f><parameter=text></parameter> <parameter=count>7"
      "</parameter><parameter=tone>\ndry</parameter></function>"};
  const std::vector<std::string> wrong = {
      "<function=f></function>",
      "<function=f><parameter=count>7</parameter></function>",
      "<function=f><parameter=text>a</parameter><parameter=count>x"
      "</parameter></function>",
      "<function=f><parameter=text>a</parameter><parameter=tone>cold"
      "</parameter></function>",
      "<function=f><parameter=text>a</parameter>and</function>",
      "<function=f><parameter=text>a<parameter=b></parameter></function>"};
  const auto tag = [](const std::string& content) {
    return TagOf(R"({"type": "tag", "begin": "<function=f>", "content": )" +
                 content + R"(, "end": "</function>"})");
  };
  Check(
      GrammarKind::kStructuralTag,
      {{tag(R"({"type": "qwen_xml_parameter", )" + schema + "}"), right, wrong},
       {tag(R"({"type": "json_schema", "style": "qwen_xml", )" + schema + "}"),
        right, wrong}},
      /*write=*/false);
}

TEST(NotationsTest, StructuralTagsThatAreRefused) {
  const std::pair<std::string, const char*> cases[] = {
      {"[]", "must be an object"},
      {"{}", "needs a format"},
      {R"({"structures": [], "triggers": [""]})", "structural_tag.triggers"},
      {R"({"structures": [{"begin": "<a>", "schema": {}, "end": ""}],
           "triggers": ["<b"]})",
       "structures[0].begin: begins with 0 of the triggers"},
      {R"({"structures": [{"begin": "<a>", "schema": {"uniqueItems": true},
           "end": ""}], "triggers": ["<"]})",
       "structures[0].schema/uniqueItems"},
      {TagOf("5"), "structural_tag.format: must be an object"},
      {TagOf("{}"), "format.type: is missing"},
      {TagOf(R"({"type": "any_tokens"})"),
       "format.type: is not supported by this server"},
      {TagOf(R"({"type": "any_text", "max_tokens": 5})"), "format.max_tokens"},
      {TagOf(R"({"type": "json_schema", "json_schema": {}, "style":
                 "minimax_xml"})"),
       "format.style"},
      {TagOf(R"({"type": "qwen_xml_parameter"})"),
       "format.json_schema: is missing"},
      {TagOf(R"({"type": "qwen_xml_parameter", "json_schema": {"properties":
                 {"a": {"type": "array", "uniqueItems": true}}}})"),
       "format.json_schema/properties/a/uniqueItems"},
      {TagOf(R"({"type": "regex", "pattern": "(a"})"), "format.pattern"},
      {TagOf(R"({"type": "grammar", "grammar": "root ::= x"})"),
       "format.grammar: the grammar has no rule x"},
      {TagOf(R"({"type": "sequence", "elements": []})"), "format.elements"},
      {TagOf(R"({"type": "sequence", "elements": [{"type": "or", "elements": [
                 {"type": "const_string"}]}]})"),
       "format.elements[0].elements[0].value: is missing"},
      {TagOf(R"({"type": "tag", "begin": {"type": "token", "token": 5},
                 "content": {"type": "any_text"}, "end": "x"})"),
       "format.begin: must be a string"},
      {TagOf(R"({"type": "tag", "begin": "a", "content": {"type": "any_text"},
                 "end": ["x", ""]})"),
       "format.end"},
      {TagOf(R"({"type": "triggered_tags", "triggers": ["<", "<a"], "tags": [
                 {"begin": "<a>", "content": {"type": "any_text"}, "end": ">"}
                 ]})"),
       "format.tags[0].begin: begins with 2 of the triggers"},
  };
  for (const auto& [text, what] : cases) {
    const auto grammar = Compile(GrammarKind::kStructuralTag, text);
    ASSERT_FALSE(grammar.ok()) << text;
    EXPECT_EQ(grammar.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(grammar.status().message()),
                ::testing::HasSubstr(what))
        << text;
  }
  std::string deep = R"({"type": "any_text"})";
  for (int i = 0; i < 70; ++i) {
    deep = R"({"type": "optional", "content": )" + deep + "}";
  }
  EXPECT_FALSE(Compile(GrammarKind::kStructuralTag, TagOf(deep)).ok());
}

}  // namespace
}  // namespace switchyard::grammar
