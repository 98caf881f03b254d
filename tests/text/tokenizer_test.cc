#include "text/tokenizer.h"

#include <random>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"
#include "tests/text/test_files.h"
#include "text/encode_work.h"
#include "text/utf8.h"

namespace switchyard::text {
namespace {

using ::testing::ElementsAre;

constexpr int32_t kImStart = 151644;
constexpr int32_t kImEnd = 151645;
constexpr int32_t kThink = 151667;

class TokenizerFixtureTest : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerFixtureTest, EncodesAndDecodesEveryCase) {
  const auto loaded = Tokenizer::Load(TokenizerDirectory(GetParam()));
  ASSERT_THAT(loaded, testing::IsOk());
  const Tokenizer& tokenizer = **loaded;
  int cases = 0;
  for (const Json& line :
       ReadJsonLines("tests/fixtures/tokenizer_cases.jsonl")) {
    ++cases;
    const std::string text = line["text"].get<std::string>();
    const std::vector<int32_t> ids = IdsOf(line["ids"]);
    EXPECT_EQ(tokenizer.Encode(text), ids) << line["group"] << ": " << text;
    EXPECT_EQ(tokenizer.Decode(ids, false), line["decoded"].get<std::string>());
    const Json& skipped = line.contains("decoded_skip_special")
                              ? line["decoded_skip_special"]
                              : line["decoded"];
    EXPECT_EQ(tokenizer.Decode(ids, true), skipped.get<std::string>());
  }
  EXPECT_GT(cases, 200);
  EXPECT_EQ(tokenizer.vocab_size(), 151669);
  EXPECT_EQ(tokenizer.AddedTokenId("<think>"), kThink);
  EXPECT_EQ(tokenizer.AddedTokenId("<thinking>"), absl::nullopt);
  EXPECT_EQ(tokenizer.AddedTokenId("hello"), absl::nullopt);
  EXPECT_TRUE(tokenizer.IsSpecial(kImEnd));
  EXPECT_FALSE(tokenizer.IsSpecial(kThink));
  EXPECT_FALSE(tokenizer.IsSpecial(-1));
  EXPECT_FALSE(tokenizer.IsSpecial(1 << 30));
}

INSTANTIATE_TEST_SUITE_P(BothSpellings, TokenizerFixtureTest,
                         ::testing::Values("json", "vocab"),
                         [](const auto& info) { return info.param; });

TEST(TokenizerTest, DecodesEveryCaseWholeAndOneByOne) {
  int cases = 0;
  for (const Json& line :
       ReadJsonLines("tests/fixtures/tokenizer_decode_cases.jsonl")) {
    ++cases;
    const std::vector<int32_t> ids = IdsOf(line["ids"]);
    std::string bytes;
    ASSERT_TRUE(
        absl::Base64Unescape(line["bytes_b64"].get<std::string>(), &bytes));
    std::string token_bytes;
    for (const int32_t id : ids) {
      absl::StrAppend(&token_bytes, RealTokenizer().TokenBytes(id));
    }
    EXPECT_EQ(token_bytes, bytes);
    for (const bool skip : {false, true}) {
      const std::string expected =
          line[skip ? "decoded_skip_special" : "decoded"].get<std::string>();
      EXPECT_EQ(RealTokenizer().Decode(ids, skip), expected);
      IncrementalDetokenizer detokenizer(&RealTokenizer(), skip);
      std::string streamed;
      for (const int32_t id : ids) streamed += detokenizer.Add(id);
      streamed += detokenizer.Flush();
      EXPECT_EQ(streamed, expected);
    }
  }
  EXPECT_EQ(cases, 62);
}

TEST(TokenizerTest, RandomIdsDecodeAlikeWholeAndOneByOne) {
  std::mt19937 random(4);
  std::vector<int32_t>
      bytes;  // the tokens of single bytes: many broken characters
  for (int32_t id = 0; id < 256; ++id) bytes.push_back(id);
  for (int round = 0; round < 3000; ++round) {
    std::vector<int32_t> ids(random() % 30);
    for (int32_t& id : ids) {
      id = random() % 4 == 0 ? static_cast<int32_t>(random() % 152000)
                             : bytes[random() % bytes.size()];
    }
    const bool skip = random() % 2 == 0;
    IncrementalDetokenizer detokenizer(&RealTokenizer(), skip);
    std::string streamed;
    for (const int32_t id : ids) {
      const std::string piece = detokenizer.Add(id);
      // Never half a character.
      ASSERT_TRUE(IsValidUtf8(piece));
      streamed += piece;
    }
    streamed += detokenizer.Flush();
    ASSERT_EQ(streamed, RealTokenizer().Decode(ids, skip));
    ASSERT_EQ(detokenizer.Flush(), "");
  }
}

TEST(TokenizerTest, HoldsBackAnUnfinishedCharacterOnly) {
  std::vector<int32_t> bytes;
  for (int32_t id = 0; id < 256 && bytes.empty(); ++id) {
    if (RealTokenizer().TokenBytes(id) == "\xF0") bytes.push_back(id);
  }
  ASSERT_EQ(bytes.size(), 1u);
  IncrementalDetokenizer detokenizer(&RealTokenizer(), false);
  EXPECT_EQ(detokenizer.Add(bytes[0]), "");
  // It turns out to be none: an ASCII character follows.
  const int32_t a = RealTokenizer().Encode("a")[0];
  EXPECT_EQ(detokenizer.Add(a),
            "\xEF\xBF\xBD"
            "a");
  EXPECT_EQ(detokenizer.Add(bytes[0]), "");
  EXPECT_EQ(detokenizer.Flush(), "\xEF\xBF\xBD");
}

TEST(TokenizerTest, AddedTokensInOddPlaces) {
  const Tokenizer& tokenizer = RealTokenizer();
  const auto with = [&](absl::string_view before, int32_t id,
                        absl::string_view after) {
    std::vector<int32_t> ids = tokenizer.Encode(before);
    ids.push_back(id);
    const std::vector<int32_t> rest = tokenizer.Encode(after);
    ids.insert(ids.end(), rest.begin(), rest.end());
    return ids;
  };
  EXPECT_EQ(tokenizer.Encode("a<|im_start|>b"), with("a", kImStart, "b"));
  EXPECT_EQ(tokenizer.Encode("<<|im_start|>>"), with("<", kImStart, ">"));
  EXPECT_EQ(tokenizer.Encode("<|im_<|im_end|>"), with("<|im_", kImEnd, ""));
  EXPECT_EQ(tokenizer.Encode("<thin<think>"), with("<thin", kThink, ""));
  EXPECT_THAT(tokenizer.Encode("<|im_start|><|im_end|><|im_end|>"),
              ElementsAre(kImStart, kImEnd, kImEnd));
  // Case counts, and so does every byte.
  for (const int32_t id : tokenizer.Encode("<|IM_START|> <|im_start |>")) {
    EXPECT_LT(id, 151643);
  }
}

TEST(TokenizerTest, MarksDoNotCombineAcrossAddedTokens) {
  const Tokenizer& tokenizer = RealTokenizer();
  const std::string mark = "\xCC\x81";
  std::vector<int32_t> expected = {kThink};
  for (const int32_t id : tokenizer.Encode(mark + "e")) expected.push_back(id);
  EXPECT_EQ(tokenizer.Encode("<think>" + mark + "e"), expected);
  EXPECT_EQ(tokenizer.Encode("e" + mark), tokenizer.Encode("é"));
  // Added tokens are looked for before normalisation.
  EXPECT_EQ(tokenizer.Encode("<think>" + mark).front(), kThink);
}

TEST(TokenizerTest, InvalidUtf8IsReplacedFirst) {
  const Tokenizer& tokenizer = RealTokenizer();
  EXPECT_EQ(tokenizer.Encode("a\xFF<think>\xC3"),
            tokenizer.Encode("a\xEF\xBF\xBD<think>\xEF\xBF\xBD"));
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    std::string bytes(random() % 60, '\0');
    for (char& c : bytes) c = static_cast<char>(random());
    for (const int32_t id : tokenizer.Encode(bytes)) {
      ASSERT_GE(id, 0);
      ASSERT_LT(id, tokenizer.vocab_size());
    }
  }
}

TEST(TokenizerTest, DecodeUndoesEncode) {
  std::mt19937 random(6);
  const std::vector<std::string> alphabet = {
      "hello", " world",  "\n",         "  ",   "é",        "日本語",
      "😀",     "<think>", "<|im_end|>", "1234", "'ll",      ".",
      "\t",    "\r\n",    "Ω",          "\x01", "{\"a\": ", "//"};
  for (int round = 0; round < 500; ++round) {
    const std::string text = RandomText(alphabet, 25, &random);
    ASSERT_EQ(RealTokenizer().Decode(RealTokenizer().Encode(text), false),
              text);
  }
}

// Merging n symbols by scanning them all again after each merge would take a
// hundred times the work for ten times the text.
TEST(TokenizerTest, LongWordsCostNearLinearWork) {
  const auto work_of = [](absl::string_view unit, size_t bytes) {
    std::string text;
    while (text.size() < bytes) absl::StrAppend(&text, unit);
    EncodeWork work;
    EncodeCounted(RealTokenizer(), text, &work);
    return work.total();
  };
  for (absl::string_view unit : {"a", "ab", "é", "日", "qz", "the", " ", "\n",
                                 "=", "<", "\xCC\x81\xCC\xA3"}) {
    const int64_t once = work_of(unit, 100'000);
    const int64_t tenfold = work_of(unit, 1'000'000);
    EXPECT_GE(once, 100'000 / 4) << unit;
    EXPECT_LT(tenfold, once * 14) << unit;
  }
}

TEST(TokenizerTest, TenMegabytesOfOneWord) {
  const std::string text(10 << 20, 'a');
  EncodeWork work;
  const std::vector<int32_t> ids = EncodeCounted(RealTokenizer(), text, &work);
  EXPECT_EQ(RealTokenizer().Decode(ids, false), text);
  EXPECT_LT(work.total(), 10 * static_cast<int64_t>(text.size()));
}

}  // namespace
}  // namespace switchyard::text
