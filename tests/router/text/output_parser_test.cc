#include "router/text/output_parser.h"

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/text/test_files.h"

namespace switchyard::router {
namespace {

using Thinking = OutputSyntax::Thinking;

// Messages as text, so that differences are easy to read.
std::string Show(const ParsedMessage& message) {
  std::string text = absl::StrCat("reasoning: ", DumpJson(message.reasoning),
                                  "\ncontent: ", DumpJson(message.content));
  for (const ToolCall& call : message.tool_calls) {
    absl::StrAppend(&text, "\ncall ", call.name, ": ", call.arguments);
  }
  return text;
}

// All deltas together. Checks what a client relies on.
ParsedMessage Stream(const OutputSyntax& syntax,
                     const std::vector<std::string>& pieces,
                     TextEnd end = TextEnd::kByModel) {
  const auto parser = OutputParser::Create(syntax);
  ParsedMessage message;
  const auto add = [&message](const OutputDelta& delta) {
    message.reasoning += delta.reasoning;
    message.content += delta.content;
    for (const OutputDelta::CallDelta& call : delta.tool_calls) {
      const auto count = static_cast<int>(message.tool_calls.size());
      if (call.name.has_value()) {
        EXPECT_EQ(call.index, count) << "a name comes once, in order";
        message.tool_calls.push_back({*call.name, ""});
      } else {
        EXPECT_EQ(call.index, count - 1);
        EXPECT_FALSE(call.arguments.empty());
      }
      message.tool_calls.back().arguments += call.arguments;
    }
  };
  for (const std::string& piece : pieces) add(parser->Add(piece));
  add(parser->Finish(end));
  return message;
}

// Two pieces at every byte, single bytes, and random pieces.
void ExpectNoCutMatters(const OutputSyntax& syntax, const std::string& text) {
  const std::string whole = Show(ParseOutput(syntax, text));
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    ASSERT_EQ(Show(Stream(syntax, {text.substr(0, cut), text.substr(cut)})),
              whole)
        << "cut at " << cut << " of " << text;
  }
  std::vector<std::string> bytes;
  for (const char c : text) bytes.emplace_back(1, c);
  ASSERT_EQ(Show(Stream(syntax, bytes)), whole) << text;
  std::mt19937 random(7);
  for (int round = 0; round < 10; ++round) {
    ASSERT_EQ(Show(Stream(syntax, text::RandomPieces(text, 7, &random))), whole)
        << text;
  }
}

OutputSyntax FixtureSyntax(const Json& line) {
  OutputSyntax syntax;
  const std::string format = line["format"].get<std::string>();
  syntax.tool_calls =
      format == "xml" ? ToolCallSyntax::kXml : ToolCallSyntax::kJson;
  if (format == "think") syntax.thinking = Thinking::kOpened;
  if (format == "nothink") syntax.thinking = Thinking::kMaybe;
  syntax.tools = line["tools"];
  return syntax;
}

TEST(OutputParserTest, ParsesEveryCaseAtEveryCut) {
  int cases = 0;
  for (const Json& line :
       text::ReadJsonLines("tests/fixtures/parse_cases.jsonl")) {
    ++cases;
    const OutputSyntax syntax = FixtureSyntax(line);
    const std::string text = line["text"].get<std::string>();
    const ParsedMessage message = ParseOutput(syntax, text);
    EXPECT_EQ(message.content, line["content"].get<std::string>()) << text;
    if (line.contains("reasoning")) {
      EXPECT_EQ(message.reasoning, line["reasoning"].get<std::string>());
    } else {
      EXPECT_EQ(message.reasoning, "");
    }
    ASSERT_EQ(message.tool_calls.size(), line["tool_calls"].size()) << text;
    for (size_t i = 0; i < message.tool_calls.size(); ++i) {
      const Json& expected = line["tool_calls"][i];
      EXPECT_EQ(message.tool_calls[i].name, expected["name"]);
      const auto arguments = ParseJson(message.tool_calls[i].arguments);
      ASSERT_TRUE(arguments.ok()) << message.tool_calls[i].arguments;
      EXPECT_EQ(*arguments, expected["arguments"]);
    }
    ExpectNoCutMatters(syntax, text);
  }
  EXPECT_EQ(cases, 25);
}

// Early streaming must not change what the cases say, except for the one that
// breaks off within its arguments.
TEST(OutputParserTest, KnownToolsChangeOnlyTheCaseThatBreaksOff) {
  int cases = 0;
  for (const Json& line :
       text::ReadJsonLines("tests/fixtures/parse_cases.jsonl")) {
    if (line["format"] != "json") continue;
    ++cases;
    const std::string text = line["text"].get<std::string>();
    const OutputSyntax without = FixtureSyntax(line);
    OutputSyntax with = without;
    with.tools = *ParseJson(R"([{"name": "f"}, {"name": "g"}])");
    ExpectNoCutMatters(with, text);
    if (text.back() == ' ') {
      EXPECT_EQ(Show(ParseOutput(with, text)),
                "reasoning: \"\"\ncontent: \"\"\ncall f: {}");
    } else {
      EXPECT_EQ(Show(ParseOutput(with, text)),
                Show(ParseOutput(without, text)));
    }
  }
  EXPECT_GT(cases, 5);
}

OutputSyntax JsonSyntax() {
  OutputSyntax syntax;
  syntax.tool_calls = ToolCallSyntax::kJson;
  syntax.tools = *ParseJson(
      R"([{"type": "function", "function": {"name": "write_file"}}])");
  return syntax;
}

OutputSyntax XmlSyntax() {
  OutputSyntax syntax;
  syntax.tool_calls = ToolCallSyntax::kXml;
  syntax.tools = *ParseJson(R"([
    {"type": "function", "function": {"name": "write_file", "parameters": {
      "type": "object", "properties": {
        "path": {"type": "string"}, "text": {"type": "string"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "count": {"type": "integer"}, "options": {"type": "object"}}}}},
    {"type": "function", "function": {"name": "list", "parameters": {}}}])");
  return syntax;
}

// What ParseOutput makes of `text`, after checking that cuts don't matter, and
// that arguments are valid JSON whatever the model wrote.
std::string Parse(const OutputSyntax& syntax, const std::string& text) {
  ExpectNoCutMatters(syntax, text);
  const ParsedMessage message = ParseOutput(syntax, text);
  for (const ToolCall& call : message.tool_calls) {
    const auto arguments = ParseJson(call.arguments);
    EXPECT_TRUE(arguments.ok() && arguments->is_object()) << call.arguments;
  }
  return Show(message);
}

std::string Expected(const std::string& reasoning, const std::string& content,
                     std::vector<ToolCall> calls) {
  return Show({reasoning, content, std::move(calls)});
}

// The pieces until the first arguments of a call come out.
int PiecesUntilArguments(const OutputSyntax& syntax, const std::string& text,
                         size_t piece_bytes, size_t* largest_delta) {
  const auto parser = OutputParser::Create(syntax);
  int first = -1;
  int count = 0;
  *largest_delta = 0;
  for (size_t i = 0; i < text.size(); i += piece_bytes) {
    const OutputDelta delta = parser->Add(text.substr(i, piece_bytes));
    ++count;
    size_t bytes = 0;
    for (const auto& call : delta.tool_calls) bytes += call.arguments.size();
    if (bytes > 0 && first < 0) first = count;
    *largest_delta = std::max(*largest_delta, bytes);
  }
  return first;
}

TEST(OutputParserTest, JsonArgumentsStreamAsTheyCome) {
  const std::string head =
      "<tool_call>\n{\"name\": \"write_file\", \"arguments\": {";
  const std::string text = absl::StrCat(
      head, "\"text\": \"", std::string(8000, 'x'), "\"}}\n</tool_call>");
  size_t largest = 0;
  EXPECT_EQ(PiecesUntilArguments(JsonSyntax(), text, 1, &largest),
            static_cast<int>(head.size()));
  // The key comes with its value's first byte.
  EXPECT_LE(largest, std::string("\"text\": \"").size());
}

TEST(OutputParserTest, XmlStringsStreamAsTheyCome) {
  const std::string head = "<tool_call>\n<function=write_file>";
  for (const std::string key : {"text", "note"}) {
    const std::string text =
        absl::StrCat(head, "\n<parameter=", key, ">\n", std::string(8000, 'x'),
                     "\n</parameter>\n</function>\n</tool_call>");
    size_t largest = 0;
    EXPECT_EQ(PiecesUntilArguments(XmlSyntax(), text, 1, &largest),
              static_cast<int>(head.size()));
    EXPECT_LE(largest, std::string("\"text\": \"x").size());
  }
}

TEST(OutputParserTest, JsonThatBreaksOffIsClosed) {
  const std::string head =
      "<tool_call>\n{\"name\": \"write_file\", \"arguments\": ";
  const auto arguments_of = [&](const std::string& rest) {
    return Parse(JsonSyntax(), head + rest);
  };
  const auto call = [](const std::string& arguments,
                       const std::string& content = "") {
    return Expected("", content, {{"write_file", arguments}});
  };
  EXPECT_EQ(arguments_of("{"), call("{}"));
  EXPECT_EQ(arguments_of("{\"a"), call("{}"));
  EXPECT_EQ(arguments_of("{\"a\": "), call("{}"));
  EXPECT_EQ(arguments_of("{\"a\": \"x"), call("{\"a\": \"x\"}"));
  EXPECT_EQ(arguments_of("{\"a\": \"x\\"), call("{\"a\": \"x\\\\\"}"));
  EXPECT_EQ(arguments_of("{\"a\": \"\\u00"), call("{\"a\": \"\\\\u00\"}"));
  EXPECT_EQ(arguments_of("{\"a\": \"\\ud83d"), call("{\"a\": \"\\ufffd\"}"));
  EXPECT_EQ(arguments_of("{\"a\": \"\\ud83d\\"),
            call("{\"a\": \"\\ufffd\\\\\"}"));
  EXPECT_EQ(arguments_of("{\"a\": 1."), call("{\"a\": 1.0}"));
  EXPECT_EQ(arguments_of("{\"a\": -"), call("{\"a\": -0}"));
  EXPECT_EQ(arguments_of("{\"a\": 1e"), call("{\"a\": 1e0}"));
  EXPECT_EQ(arguments_of("{\"a\": [1, tr"), call("{\"a\": [1, true]}"));
  EXPECT_EQ(arguments_of("{\"a\": [1, "), call("{\"a\": [1]}"));
  EXPECT_EQ(arguments_of("{\"a\": 1, \"b\": {"), call("{\"a\": 1, \"b\": {}}"));
  EXPECT_EQ(arguments_of("{\"a\": 1}"), call("{\"a\": 1}"));
  EXPECT_EQ(arguments_of("{\"a\": 1}}"), call("{\"a\": 1}"));
  EXPECT_EQ(arguments_of("{\"a\": 1}, \"b\": 2"), call("{\"a\": 1}"));
}

// Cut off anywhere, a call has a beginning of its arguments, which grows with
// the text, and is whole once they are.
TEST(OutputParserTest, CutOffCallsHaveWhatCameOfTheirArguments) {
  struct Case {
    OutputSyntax syntax;
    std::string text;
    std::string begun;  // from here on there is a call
    std::string whole;  // from here on it is complete
  };
  for (
      const Case& c :
      {Case{
           JsonSyntax(),
           "<tool_call>\n{\"name\": \"write_file\", \"arguments\": {\"text\": "
           "\"a\\n\\ud83d\\ude00 b\", \"n\": [1, {\"x\": 2.5}]}}\n</tool_call>",
           "\"write_file\"", "2.5}]}"},
       Case{XmlSyntax(),
            "<tool_call>\n<function=write_file>\n<parameter=text>\na \"b\"\n"
            "c\n</parameter>\n<parameter=count>\n512\n</parameter>\n<parameter="
            "options>\n{\"x\":[1]}\n</parameter>\n</function>\n</tool_call>",
            "<function=write_file>", "</function>"}}) {
    const std::string whole =
        ParseOutput(c.syntax, c.text).tool_calls.at(0).arguments;
    const size_t begun = c.text.find(c.begun) + c.begun.size();
    const size_t complete = c.text.find(c.whole) + c.whole.size();
    size_t longest = 0;
    for (size_t end = 0; end <= c.text.size(); ++end) {
      SCOPED_TRACE(c.text.substr(0, end));
      const auto parser = OutputParser::Create(c.syntax);
      ParsedMessage message =
          Stream(c.syntax, {c.text.substr(0, end)}, TextEnd::kCutOff);
      parser->Add(c.text.substr(0, end));
      parser->Finish(TextEnd::kCutOff);
      ASSERT_EQ(message.tool_calls.size(), end >= begun ? 1u : 0u);
      EXPECT_EQ(parser->call_cut_off(), end >= begun && end < complete);
      if (message.tool_calls.empty()) continue;
      EXPECT_EQ(message.content, "");
      const std::string& arguments = message.tool_calls[0].arguments;
      EXPECT_EQ(arguments, whole.substr(0, arguments.size()));
      EXPECT_GE(arguments.size(), longest);
      longest = arguments.size();
      EXPECT_EQ(arguments == whole, end >= complete) << arguments;
    }
    EXPECT_EQ(longest, whole.size());
  }
}

TEST(OutputParserTest, JsonThatGoesWrongLateLosesNoText) {
  const std::string head =
      "<tool_call>\n{\"name\": \"write_file\", \"arguments\": ";
  const auto parse = [&](const std::string& rest) {
    return Parse(JsonSyntax(), head + rest);
  };
  const auto call = [](const std::string& arguments,
                       const std::string& content = "") {
    return Expected("", content, {{"write_file", arguments}});
  };
  // The end tag in the middle.
  EXPECT_EQ(parse("{\"a\": 1\n</tool_call>tail"), call("{\"a\": 1}", "tail"));
  EXPECT_EQ(parse("{\"a\": 1, </tool_call>"), call("{\"a\": 1}"));
  EXPECT_EQ(parse("{\"a\": \"open\n</tool_call>\ntail"),
            call("{\"a\": \"open\"}", "tail"));
  // Without a newline before it, it may well be part of a string.
  EXPECT_EQ(parse("{\"a\": \"</tool_call>\"}}</tool_call>"),
            call("{\"a\": \"</tool_call>\"}"));
  // Not JSON.
  EXPECT_EQ(parse("{\"a\": oops}\n</tool_call> tail"),
            call("{}", "\"a\": oops}\n tail"));
  EXPECT_EQ(parse("{\"a\": 1} oops\n</tool_call>"), call("{\"a\": 1}", "oops"));
  // Mended.
  EXPECT_EQ(parse("{\"a\": \"1\n2\t\x01\\d\\'\"}}\n</tool_call>"),
            call("{\"a\": \"1\\n2\\t\\u0001\\\\d\\\\'\"}"));
  EXPECT_EQ(parse("{\"a\": [1, 2,], }}\n</tool_call>"),
            call("{\"a\": [1, 2] }"));
  EXPECT_EQ(parse("{\"a\": 1}}}\n</tool_call>"), call("{\"a\": 1}"));
  EXPECT_EQ(parse("{\"a\": 1}\n</tool_call>"), call("{\"a\": 1}"));
  // A second call after a broken one.
  EXPECT_EQ(parse("{\"a\": <tool_call>{\"name\": \"x\"}</tool_call>"),
            Expected("", "\"a\":", {{"write_file", "{}"}, {"x", "{}"}}));
}

TEST(OutputParserTest, JsonBlocksThatAreNoCallStayInTheContent) {
  for (const std::string text :
       {"<tool_call>", "<tool_call", "<tool_call>\n", "<tool_call>{",
        "<tool_call>[1]</tool_call>", "<tool_call>{}</tool_call>",
        "<tool_call>{\"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": 1, \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"\"}</tool_call>",
        "<tool_call>{\"name\": \"x\", \"arguments\": [1]}</tool_call>",
        "<tool_call>{\"name\": \"x\", \"arguments\": \"{\"}</tool_call>",
        "<tool_call>{\"name\": \"x\", \"arguments\": \"[]\"}</tool_call>",
        "<tool_call>{\"name\": \"x\", \"arguments\": {\"a\n\": 1}}</tool_call>",
        "<tool_call>{\"name\": \"x\",}</tool_call>",
        "<tool_call>{\"name\": \"x\"} y</tool_call>",
        "<tool_call>{\"name\": \"x\", \"n\": 01}</tool_call>",
        "<tool_call>{\"name\": \"x\", \"s\": \"\\ud800\"}</tool_call>",
        "a </tool_call> b", "a < b << <tool <tool_call"}) {
    EXPECT_EQ(Parse(JsonSyntax(), text), Expected("", text, {})) << text;
  }
}

TEST(OutputParserTest, JsonCallsInOddForms) {
  const auto call = [](const std::string& arguments) {
    return Expected("", "", {{"x", arguments}});
  };
  EXPECT_EQ(Parse(JsonSyntax(),
                  "<tool_call>{\"arguments\": {\"a\":  1 }, \"name\": "
                  "\"x\"}</tool_call>"),
            call("{\"a\":  1 }"));
  EXPECT_EQ(Parse(JsonSyntax(),
                  "<tool_call>{\"id\": -1.5e3, \"name\": \"x\", "
                  "\"arguments\": null}"),
            call("{}"));
  EXPECT_EQ(Parse(JsonSyntax(),
                  "<tool_call>{\"name\": \"x\", \"arguments\": "
                  "\"{\\\"a\\\": 1}\"}\n</tool_call>"),
            call("{\"a\": 1}"));
  EXPECT_EQ(
      Parse(JsonSyntax(),
            "<tool_call>{\"name\": \"x\", \"arguments\": \"\"}\n</tool_call>"),
      call("{}"));
  EXPECT_EQ(Parse(JsonSyntax(), "<tool_call>{\"n\\u0061me\": \"x\"}"),
            call("{}"));
  // Big numbers stay as they are.
  EXPECT_EQ(Parse(JsonSyntax(),
                  "<tool_call>{\"name\": \"x\", \"arguments\": {\"a\": "
                  "123456789012345678901234567890}}"),
            call("{\"a\": 123456789012345678901234567890}"));
}

TEST(OutputParserTest, WhiteSpaceAroundCallsIsTrimmed) {
  const std::string call = "<tool_call>{\"name\": \"x\"}</tool_call>";
  const auto parse = [&](const std::string& text) {
    return Parse(JsonSyntax(), text);
  };
  EXPECT_EQ(parse("  a\n\n"), Expected("", "  a\n\n", {}));
  EXPECT_EQ(parse("\n " + call + "\n" + call + "\n"),
            Expected("", "", {{"x", "{}"}, {"x", "{}"}}));
  EXPECT_EQ(parse(call + "\n\nb\n"), Expected("", "b", {{"x", "{}"}}));
  EXPECT_EQ(parse("a\n" + call + "\nb\n"),
            Expected("", "a\n\nb", {{"x", "{}"}}));
}

TEST(OutputParserTest, XmlCallsInOddForms) {
  const auto parse = [](const std::string& text) {
    return Parse(XmlSyntax(), text);
  };
  const auto call = [](const std::string& arguments,
                       const std::string& content = "") {
    return Expected("", content, {{"write_file", arguments}});
  };
  const std::string head = "<tool_call>\n<function=write_file>\n";
  const std::string tail = "\n</function>\n</tool_call>";
  // A value may hold anything.
  EXPECT_EQ(parse(head +
                  "<parameter=text>\nif (a < b && c > d) {\n</function>\n\n"
                  "<parameter=x>\n</param>\t\"\\\n</parameter>" +
                  tail),
            call("{\"text\": \"if (a < b && c > d) {\\n</function>\\n\\n"
                 "<parameter=x>\\n</param>\\t\\\"\\\\\"}"));
  // Forgotten end tags.
  EXPECT_EQ(parse(head + "<parameter=text>\na\n<parameter=count>\n7" + tail),
            call("{\"text\": \"a\", \"count\": 7}"));
  EXPECT_EQ(
      parse(head + "<parameter=text>\n<parameter=count>\n7\n</tool_call>"),
      call("{\"text\": \"\", \"count\": 7}"));
  EXPECT_EQ(parse(head + "<parameter=text>\na\n</function>"),
            call("{\"text\": \"a\"}"));
  // A parameter that was given already is text.
  EXPECT_EQ(parse(head +
                  "<parameter=count>1</parameter><parameter=text>\na\n"
                  "<parameter=count>\n</parameter>" +
                  tail),
            call("{\"count\": 1, \"text\": \"a\\n<parameter=count>\"}"));
  // The end of the text.
  EXPECT_EQ(parse(head), call("{}"));
  EXPECT_EQ(parse(head + "<parameter=te"), call("{}"));
  EXPECT_EQ(parse(head + "<parameter=count>\n12"), call("{}"));
  EXPECT_EQ(parse(head + "<parameter=text>\nab\n</para"),
            call("{\"text\": \"ab\"}"));
  EXPECT_EQ(parse(head + "<parameter=note>\nnul"), call("{}"));
  EXPECT_EQ(parse(head + "<parameter=note>\nnull\n</parameter>" + tail),
            call("{\"note\": null}"));
  EXPECT_EQ(parse(head + "<parameter=note>\nnullify\n</parameter>" + tail),
            call("{\"note\": \"nullify\"}"));
  // Text between parameters.
  EXPECT_EQ(parse(head + "so it is <i>\n<parameter=text>a</parameter>\n" +
                  "and more" + tail + " end"),
            call("{\"text\": \"a\"}", "so it is <i>\nand more\n end"));
  // Two functions in one block, and none closed.
  EXPECT_EQ(parse("a <tool_call><function=write_file></function>\n<function="
                  "list>\n</function></tool_call> b"),
            Expected("", "a  b", {{"write_file", "{}"}, {"list", "{}"}}));
  EXPECT_EQ(parse("<function=write_file><tool_call>\n<function=list>"),
            Expected("", "", {{"write_file", "{}"}, {"list", "{}"}}));
  // Names.
  EXPECT_EQ(parse("<tool_call><function= other >\n<parameter=k>1"
                  "</parameter></function></tool_call>"),
            Expected("", "", {{"other", "{\"k\": 1}"}}));
}

TEST(OutputParserTest, XmlThatIsNoCallStaysInTheContent) {
  for (const std::string text :
       {"<tool_call>", "<tool_call>\n{\"name\": \"list\"}\n</tool_call>",
        "<function=other>\n</function>", "write <function=NAME> first",
        "<tool_call>\n<function=>", "<tool_call><function=a\nb>",
        "<function=li", "a </tool_call> b < c", "</function>"}) {
    EXPECT_EQ(Parse(XmlSyntax(), text), Expected("", text, {})) << text;
  }
  const std::string long_name =
      absl::StrCat("<tool_call><function=", std::string(300, 'n'), ">");
  EXPECT_EQ(Parse(XmlSyntax(), long_name), Expected("", long_name, {}));
}

TEST(OutputParserTest, ReasoningInOddForms) {
  OutputSyntax opened = JsonSyntax();
  opened.thinking = Thinking::kOpened;
  EXPECT_EQ(Parse(opened, "still\n\nthinking\n\n"),
            Expected("still\n\nthinking", "", {}));
  EXPECT_EQ(Parse(opened, "\n<think>\n<think>\na <b> </thin\n</think>"),
            Expected("a <b> </thin", "", {}));
  EXPECT_EQ(Parse(opened, "a</thi"), Expected("a</thi", "", {}));
  EXPECT_EQ(Parse(opened, ""), Expected("", "", {}));
  // A call that is only thought of is no call.
  const std::string call = "<tool_call>{\"name\": \"x\"}</tool_call>";
  EXPECT_EQ(Parse(opened, call + "</think>" + call),
            Expected(call, "", {{"x", "{}"}}));
  EXPECT_EQ(Parse(opened, call), Expected(call, "", {}));

  OutputSyntax maybe = JsonSyntax();
  maybe.thinking = Thinking::kMaybe;
  EXPECT_EQ(Parse(maybe, "\n <think>a</think>\n\nb"), Expected("a", "b", {}));
  EXPECT_EQ(Parse(maybe, "a <think>b</think>c"),
            Expected("", "a <think>b</think>c", {}));
  EXPECT_EQ(Parse(maybe, " \n"), Expected("", " \n", {}));
  EXPECT_EQ(Parse(maybe, " <thin"), Expected("", " <thin", {}));
  EXPECT_EQ(Parse(maybe, "<" + call), Expected("", "<", {{"x", "{}"}}));
  EXPECT_EQ(Parse(maybe, "<think>"), Expected("", "", {}));
}

TEST(OutputParserTest, KnowsWhenItIsInReasoning) {
  OutputSyntax syntax;
  syntax.thinking = Thinking::kOpened;
  const auto opened = OutputParser::Create(syntax);
  EXPECT_TRUE(opened->in_reasoning());
  opened->Add("a</thin");
  EXPECT_TRUE(opened->in_reasoning());
  opened->Add("k>");
  EXPECT_FALSE(opened->in_reasoning());
  syntax.thinking = Thinking::kMaybe;
  const auto maybe = OutputParser::Create(syntax);
  EXPECT_FALSE(maybe->in_reasoning());
  maybe->Add("<think>");
  EXPECT_TRUE(maybe->in_reasoning());
  syntax.thinking = Thinking::kNone;
  EXPECT_FALSE(OutputParser::Create(syntax)->in_reasoning());
}

TEST(OutputParserTest, WithoutSyntaxTextIsUntouched) {
  const std::string text =
      " <think>a</think>\n<tool_call>{\"name\": \"x\"}</tool_call> \n";
  EXPECT_EQ(Parse({}, text), Expected("", text, {}));
}

// Any text at all: no cut matters, arguments are JSON, and what is not a call
// is not lost.
TEST(OutputParserTest, RandomTextAtRandomCuts) {
  const std::vector<std::string> alphabet = {
      "<tool_call>",
      "</tool_call>",
      "<function=write_file>",
      "<function=list>",
      "</function>",
      "<parameter=text>",
      "<parameter=count>",
      "</parameter>",
      "<think>",
      "</think>",
      "{\"name\": \"write_file\", \"arguments\": {",
      "{",
      "}",
      "\"a\": ",
      "\"",
      "\\",
      "\\u12",
      "\\ud83d",
      "\n",
      " ",
      ",",
      ":",
      "[",
      "]",
      "1",
      "-1.5e",
      "tru",
      "null",
      "text",
      "é",
      "<",
      ">",
      "</",
      "\n</tool_call>",
      "\t"};
  std::mt19937 random(8);
  int calls = 0;
  for (int round = 0; round < 20000; ++round) {
    OutputSyntax syntax = round % 2 == 0 ? JsonSyntax() : XmlSyntax();
    syntax.thinking = static_cast<Thinking>(random() % 3);
    std::string text;
    if (random() % 2 == 0) {
      text = syntax.tool_calls == ToolCallSyntax::kJson
                 ? "<tool_call>{\"name\": \"write_file\", \"arguments\": {"
                 : "<tool_call><function=write_file>";
      if (syntax.thinking == Thinking::kOpened) text = "</think>" + text;
    }
    text +=
        text::RandomText(alphabet, static_cast<int>(random() % 25), &random);
    const ParsedMessage message = ParseOutput(syntax, text);
    const std::string whole = Show(message);
    calls += static_cast<int>(message.tool_calls.size());
    ASSERT_EQ(Show(Stream(syntax, text::RandomPieces(text, 5, &random))), whole)
        << text;
    for (const ToolCall& call : message.tool_calls) {
      const auto arguments = ParseJson(call.arguments);
      ASSERT_TRUE(arguments.ok() && arguments->is_object())
          << call.arguments << " of " << text;
    }
    // Words are long enough to be told from what a tag drops.
    const auto count = [](const std::string& in) {
      size_t found = 0;
      for (size_t i = in.find("text"); i != std::string::npos;
           i = in.find("text", i + 1)) {
        ++found;
      }
      return found;
    };
    if (message.tool_calls.empty()) {
      ASSERT_EQ(count(whole), count(text)) << text;
    }
  }
  EXPECT_GT(calls, 5000);
}

// A block that proves to be none must not be looked at again and again.
TEST(OutputParserTest, LongHostileTextIsParsedOnce) {
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += "<tool_call>{\"a\":\"";
  ParsedMessage message = ParseOutput(JsonSyntax(), text);
  EXPECT_EQ(message.content, text);
  EXPECT_EQ(ParseOutput(XmlSyntax(), text).content, text);
  std::string open = "<tool_call><function=write_file><parameter=text>\n";
  for (int i = 0; i < 200'000; ++i) open += "\n<parameter=text\n</function>\n";
  EXPECT_EQ(ParseOutput(XmlSyntax(), open).tool_calls.size(), 1u);
}

}  // namespace
}  // namespace switchyard::router
