#include "text/tokenizer_files.h"

#include <random>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/text/test_files.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace switchyard::text {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The 256 tokens of single bytes as ids 0 to 255, by byte.
Json ByteVocab() {
  Json vocab = Json::object();
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) ||
                           (byte >= 161 && byte <= 172) || byte >= 174;
    std::string character;
    AppendUtf8(printable ? static_cast<char32_t>(byte) : next++, &character);
    vocab[character] = byte;
  }
  return vocab;
}

// A small tokenizer.json: two merges, and two added tokens.
Json SmallTokenizer() {
  Json root = *ParseJson(R"({
    "added_tokens": [
      {"id": 300, "content": "<end>", "special": true},
      {"id": 301, "content": "<end>x"}],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}]},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "continuing_subword_prefix": "",
              "merges": [["a", "b"], ["ab", "c"]]}})");
  root["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] =
      std::string(kQwenExpression);
  root["model"]["vocab"] = ByteVocab();
  root["model"]["vocab"]["ab"] = 256;
  root["model"]["vocab"]["abc"] = 257;
  return root;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const Json& root,
                                                const Json& config = Json()) {
  const TempDir directory;
  directory.Write("tokenizer.json", DumpJson(root));
  if (!config.is_null()) {
    directory.Write("tokenizer_config.json", DumpJson(config));
  }
  return Tokenizer::Load(directory.path());
}

auto Refused(absl::string_view file, absl::string_view place) {
  return StatusIs(
      absl::StatusCode::kInvalidArgument,
      AllOf(HasSubstr(std::string(file)), HasSubstr(std::string(place))));
}

TEST(TokenizerFilesTest, ASmallTokenizer) {
  const auto tokenizer = Load(SmallTokenizer());
  ASSERT_THAT(tokenizer, IsOk());
  EXPECT_THAT((*tokenizer)->Encode("abcab<end>x<end>"),
              ElementsAre(257, 256, 301, 300));
  EXPECT_EQ((*tokenizer)->vocab_size(), 302);
  EXPECT_EQ((*tokenizer)->TokenBytes(258), "");
  EXPECT_EQ((*tokenizer)->Decode({257, 258, 9999, -1, 300}, false), "abc<end>");
  EXPECT_EQ((*tokenizer)->Decode({257, 300, 301}, true), "abc<end>x");
}

TEST(TokenizerFilesTest, MergesAsText) {
  Json root = SmallTokenizer();
  root["model"]["merges"] = *ParseJson(R"(["a b", "ab c"])");
  const auto tokenizer = Load(root);
  ASSERT_THAT(tokenizer, IsOk());
  EXPECT_THAT((*tokenizer)->Encode("abc"), ElementsAre(257));
}

TEST(TokenizerFilesTest, VocabAndMergesWithAndWithoutHeader) {
  for (absl::string_view header : {"#version: 0.2\n", ""}) {
    for (absl::string_view end : {"\n", "\r\n", ""}) {
      const TempDir directory;
      directory.Write("vocab.json",
                      DumpJson(SmallTokenizer()["model"]["vocab"]));
      directory.Write("merges.txt", absl::StrCat(header, "a b\nab c", end));
      const auto tokenizer = Tokenizer::Load(directory.path());
      ASSERT_THAT(tokenizer, IsOk());
      EXPECT_THAT((*tokenizer)->Encode("abc"), ElementsAre(257));
    }
  }
}

TEST(TokenizerFilesTest, AddedTokensOfTheConfig) {
  Json config = *ParseJson(R"({"added_tokens_decoder": {
      "300": {"content": "<end>", "special": false},
      "310": {"content": "<new>", "special": true}}})");
  const auto tokenizer = Load(SmallTokenizer(), config);
  ASSERT_THAT(tokenizer, IsOk());
  EXPECT_FALSE((*tokenizer)->IsSpecial(300)) << "the config's flags win";
  EXPECT_TRUE((*tokenizer)->IsSpecial(310));
  EXPECT_THAT((*tokenizer)->Encode("<new><end>x"), ElementsAre(310, 301));
}

// With normalized = true a token is looked for in the normalised text.
TEST(TokenizerFilesTest, NormalizedAddedTokens) {
  Json root = SmallTokenizer();
  root["added_tokens"][0]["content"] = "e\xCC\x81";
  for (const bool normalized : {false, true}) {
    root["added_tokens"][0]["normalized"] = normalized;
    const auto tokenizer = Load(root);
    ASSERT_THAT(tokenizer, IsOk());
    EXPECT_EQ((*tokenizer)->Encode("\xC3\xA9").size(), normalized ? 1u : 2u);
    EXPECT_THAT((*tokenizer)->Encode("e\xCC\x81"), ElementsAre(300));
  }
}

TEST(TokenizerFilesTest, WithoutNormalizer) {
  Json root = SmallTokenizer();
  root["normalizer"] = Json();
  const auto tokenizer = Load(root);
  ASSERT_THAT(tokenizer, IsOk());
  EXPECT_THAT((*tokenizer)->Encode("e\xCC\x81"), ElementsAre('e', 0xCC, 0x81));
}

TEST(TokenizerFilesTest, MissingFilesAreNamed) {
  const TempDir directory;
  const auto missing = StatusIs(
      absl::StatusCode::kNotFound,
      AllOf(HasSubstr(directory.path()), HasSubstr("neither tokenizer.json")));
  EXPECT_THAT(Tokenizer::Load(directory.path()), missing);
  directory.Write("vocab.json", "{}");
  EXPECT_THAT(Tokenizer::Load(directory.path()), missing);
}

// One edit of a good tokenizer, and what the message must name.
struct BadFile {
  const char* pointer;  // JSON pointer
  const char* value;
  const char* place;
};

TEST(TokenizerFilesTest, EveryErrorNamesFileAndPlace) {
  for (const BadFile& bad : std::initializer_list<BadFile>{
           {"/model/type", "\"WordPiece\"", "model.type"},
           {"/model", "[]", "model.type"},
           {"/model", "null", "model: missing"},
           {"/model/vocab", "null", "model.vocab: missing"},
           {"/model/merges", "{}", "model.merges: missing"},
           {"/model/dropout", "0.1", "model.dropout"},
           {"/model/byte_fallback", "true", "model.byte_fallback"},
           {"/model/ignore_merges", "true", "model.ignore_merges"},
           {"/model/vocab/ab", "-1", "vocab, \"ab\""},
           {"/model/vocab/ab", "1.5", "vocab, \"ab\""},
           {"/model/vocab/ab", "99999999", "vocab, \"ab\""},
           {"/model/vocab/ab", "18446744073709551615", "vocab, \"ab\""},
           {"/model/vocab/ab", "{}", "vocab, \"ab\""},
           {"/model/vocab/ab", "[]", "vocab, \"ab\""},
           {"/model/vocab/ab", "65", "id 65 belongs to two tokens"},
           {"/model/merges/1", "[\"ab\"]", "merges[1]"},
           {"/model/merges/1", "[\"a\", \"b\", \"c\"]", "merges[1]"},
           {"/model/merges/1", "\"abc\"", "merges[1]"},
           {"/model/merges/1", "\"a b c\"", "merges[1]"},
           {"/model/merges/1", "7", "merges[1]"},
           {"/model/merges/1", "{}", "merges[1]"},
           {"/model/merges/1", "[[]]", "merges[1]"},
           {"/model/merges/1", "[\"b\", \"a\"]", "\"ba\" is not in"},
           {"/model/merges/1", "[\"a\", \"b\"]", "twice"},
           {"/normalizer", "{\"type\": \"NFKC\"}", "normalizer"},
           {"/pre_tokenizer", "null", "pre_tokenizer"},
           {"/pre_tokenizer/pretokenizers", "[]", "pre_tokenizer"},
           {"/pre_tokenizer/pretokenizers/0/behavior", "\"Removed\"",
            "pretokenizers[0]"},
           {"/pre_tokenizer/pretokenizers/0/pattern", "{\"String\": \"x\"}",
            "pattern"},
           {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "\"(\"", "byte 1"},
           {"/pre_tokenizer/pretokenizers/1/use_regex", "true",
            "pretokenizers[1]"},
           {"/decoder/type", "\"WordPiece\"", "decoder"},
           {"/added_tokens", "{}", "added_tokens"},
           {"/added_tokens/0", "7", "added_tokens[0].id"},
           {"/added_tokens/0/id", "-5", "added_tokens[0].id"},
           {"/added_tokens/0/id", "99999999", "added_tokens[0].id"},
           {"/added_tokens/0/id", "301", "id 301 is both"},
           {"/added_tokens/0/id", "65", "the id is taken"},
           {"/added_tokens/0/content", "\"\"", "added_tokens[0]"},
           {"/added_tokens/0/content", "\"ab\"", "has it as id 256"},
           {"/added_tokens/0/content", "\"<end>x\"", "two ids"},
           {"/added_tokens/0/lstrip", "true", "added_tokens[0].lstrip"}}) {
    Json root = SmallTokenizer();
    root[Json::json_pointer(bad.pointer)] = *ParseJson(bad.value);
    EXPECT_THAT(Load(root), Refused("/tokenizer.json", bad.place))
        << bad.pointer << " = " << bad.value;
  }
}

TEST(TokenizerFilesTest, AByteWithoutTokenIsNamed) {
  Json root = SmallTokenizer();
  root["model"]["vocab"].erase("A");
  EXPECT_THAT(Load(root), Refused("/tokenizer.json", "no token for byte 65"));
}

TEST(TokenizerFilesTest, BadConfigsAreNamed) {
  const auto load = [](absl::string_view config) {
    return Load(SmallTokenizer(), *ParseJson(config));
  };
  const char* const file = "/tokenizer_config.json";
  EXPECT_THAT(load("[]"), Refused(file, "$"));
  EXPECT_THAT(load(R"({"added_tokens_decoder": []})"),
              Refused(file, "added_tokens_decoder"));
  EXPECT_THAT(load(R"({"added_tokens_decoder": {"x": {"content": "y"}}})"),
              Refused(file, "added_tokens_decoder[\"x\"]"));
  EXPECT_THAT(load(R"({"added_tokens_decoder": {"-1": {"content": "y"}}})"),
              Refused(file, "not within"));
  EXPECT_THAT(load(R"({"added_tokens_decoder": {"300": {"content": "y"}}})"),
              Refused(file, "is both"));
}

TEST(TokenizerFilesTest, TextThatIsNoJsonIsNamedByByte) {
  for (absl::string_view text : {"", "{", "{\"model\": {\"vocab\": {\"a\": 1}",
                                 "{} x", "\xFF", "{\"a\": 1e999}"}) {
    TokenizerFiles files;
    EXPECT_THAT(ParseTokenizerJson("/x/tokenizer.json", text, &files),
                Refused("/x/tokenizer.json", "byte"))
        << text;
  }
  TokenizerFiles files;
  EXPECT_THAT(ParseTokenizerJson("t", std::string(100'000, '['), &files),
              Refused("t", "nested too deeply"));
  EXPECT_THAT(ParseVocabJson("v", "[]", &files), Refused("v", "not an object"));
  EXPECT_THAT(ParseVocabJson("v", "7", &files), Refused("v", "not an object"));
  EXPECT_THAT(ParseMergesTxt("m", "a b\n\nc d\n", &files),
              Refused("m", "line 2"));
  EXPECT_THAT(ParseMergesTxt("m", "a b\n a\n", &files), Refused("m", "line 2"));
}

// Bytes changed at random: an error or a tokenizer, never anything worse.
TEST(TokenizerFilesTest, DamagedFilesAreHarmless) {
  const std::string good = DumpJson(SmallTokenizer());
  std::mt19937 random(11);
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = good;
    for (int i = 0; i < 3; ++i) {
      text[random() % text.size()] = "{}[]\",:0a\xC3 "[random() % 11];
    }
    if (random() % 4 == 0) text.resize(random() % text.size());
    TokenizerFiles files;
    if (!ParseTokenizerJson("t", text, &files).ok()) ++refused;
  }
  EXPECT_GT(refused, 1500);
}

}  // namespace
}  // namespace switchyard::text
