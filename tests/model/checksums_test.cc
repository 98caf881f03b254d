#include "model/checksums.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/sha256.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::model {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::IsOkAndHolds;
using ::testing::Pair;
using testing::StatusIs;
using testing::TempDir;
using ::testing::UnorderedElementsAre;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string Sum(const std::string& content) {
  Sha256 hash;
  hash.Update(content);
  return hash.FinishHex();
}

// FIPS 180-4's examples.
TEST(Sha256, KnownSums) {
  EXPECT_EQ(Sum("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sum(""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 pieces;
  pieces.Update("a");
  pieces.Update("");
  pieces.Update("bc");
  EXPECT_EQ(pieces.FinishHex(), Sum("abc"));
}

TEST(ParseChecksums, BothModesAndUpperCase) {
  const std::string a(64, 'a');
  const std::string b(64, 'B');
  EXPECT_THAT(
      ParseChecksums(absl::StrCat(a, "  one.safetensors\n", b, " *two 2\n")),
      IsOkAndHolds(UnorderedElementsAre(Pair("one.safetensors", a),
                                        Pair("two 2", std::string(64, 'b')))));
}

TEST(ParseChecksums, Errors) {
  const std::string a(64, 'a');
  for (const std::string& text :
       {std::string(), std::string("\n\n"), a, a + "\n", a + "  ", a + " x",
        a + "x  y", a.substr(1) + "  name", std::string(64, 'g') + "  name",
        a + "  sub/name", a + "  n\n" + a + "  n\n", "\\" + a + "  name"}) {
    EXPECT_THAT(ParseChecksums(text),
                StatusIs(kInvalid, HasSubstr("SHA256SUMS")))
        << text;
  }
  EXPECT_THAT(ParseChecksums(a + "  n\nnonsense\n"),
              StatusIs(kInvalid, HasSubstr("line 2")));
}

class VerifyChecksumsTest : public ::testing::Test {
 protected:
  VerifyChecksumsTest() {
    dir_.Write("model.safetensors", weights_);
    dir_.Write("config.json", "{}");
    dir_.Write("SHA256SUMS",
               absl::StrCat(Sum(weights_), "  model.safetensors\n", Sum("{}"),
                            "  config.json\n"));
  }

  absl::Status Verify() { return VerifyChecksums(dir_.path(), nullptr); }

  const std::string weights_ = std::string(100000, 'w');
  TempDir dir_;
};

TEST_F(VerifyChecksumsTest, IntactFiles) {
  std::vector<std::pair<int64_t, int64_t>> calls;
  EXPECT_THAT(VerifyChecksums(dir_.path(),
                              [&](int64_t done, int64_t total) {
                                calls.emplace_back(done, total);
                              }),
              IsOk());
  ASSERT_FALSE(calls.empty());
  EXPECT_EQ(calls.back(), std::pair(int64_t{100002}, int64_t{100002}));
  EXPECT_THAT(Verify(), IsOk());
}

TEST_F(VerifyChecksumsTest, AnyFlippedBitIsFound) {
  for (const size_t byte : {0, 50000, 99999}) {
    std::string damaged = weights_;
    damaged[byte] ^= 1 << (byte % 8);
    dir_.Write("model.safetensors", damaged);
    EXPECT_THAT(
        Verify(),
        StatusIs(absl::StatusCode::kDataLoss,
                 AllOf(HasSubstr(dir_.File("model.safetensors")),
                       HasSubstr(Sum(damaged)), HasSubstr(Sum(weights_)))));
  }
}

TEST_F(VerifyChecksumsTest, MissingFiles) {
  dir_.Write("SHA256SUMS", absl::StrCat(Sum(weights_), "  model.safetensors\n",
                                        Sum(""), "  model-2.safetensors\n"));
  EXPECT_THAT(Verify(), StatusIs(absl::StatusCode::kNotFound,
                                 HasSubstr("model-2.safetensors")));
  TempDir empty;
  EXPECT_THAT(VerifyChecksums(empty.path(), nullptr),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("SHA256SUMS")));
}

TEST_F(VerifyChecksumsTest, EveryWeightFileMustBeListed) {
  dir_.Write("model-00002-of-00002.safetensors", "x");
  EXPECT_THAT(Verify(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("model-00002-of-00002")));
}

TEST_F(VerifyChecksumsTest, ABadListNamesItsPath) {
  dir_.Write("SHA256SUMS", "nonsense");
  EXPECT_THAT(Verify(), StatusIs(kInvalid, HasSubstr(dir_.path())));
}

}  // namespace
}  // namespace switchyard::model
