#include "model/safetensors.h"

#include <cstring>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::model {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::FixturePath;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::IsOk;
using testing::IsOkAndHolds;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;

// A file with this header and `data_bytes` zeros after it.
std::string FileOf(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(8, '\0');
  std::memcpy(file.data(), &length, 8);
  return file + header + std::string(data_bytes, '\0');
}

absl::StatusOr<SafetensorsTensors> Parse(const std::string& file) {
  return ParseSafetensors(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(file.data()), file.size()));
}

TEST(ParseSafetensors, TensorsAndPadding) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},)"
      R"("b":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]},)"
      R"("a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},)"
      R"("none":{"dtype":"F32","shape":[3,0],"data_offsets":[4,4]},)"
      R"("scalar":{"dtype":"I64","shape":[],"data_offsets":[12,20]}}   )";
  const auto tensors = Parse(FileOf(header, 20));
  ASSERT_THAT(tensors, IsOk());
  ASSERT_EQ(tensors->size(), 4u);
  const int64_t data = 8 + static_cast<int64_t>(header.size());
  EXPECT_EQ(tensors->at("a").dtype, "BF16");
  EXPECT_THAT(tensors->at("a").shape, ElementsAre(2));
  EXPECT_EQ(tensors->at("a").begin, data);
  EXPECT_EQ(tensors->at("b").begin, data + 4);
  EXPECT_EQ(tensors->at("b").end, data + 12);
  EXPECT_THAT(tensors->at("scalar").shape, IsEmpty());
}

TEST(ParseSafetensors, AnEmptyHeaderIsAFile) {
  EXPECT_THAT(Parse(FileOf("{}", 0)), IsOkAndHolds(IsEmpty()));
}

// Sizes of every dtype that the format knows, and none for one that it doesn't.
TEST(ParseSafetensors, DTypeSizes) {
  const auto parse = [](const std::string& dtype, int bytes) {
    return Parse(FileOf(
        absl::StrCat(R"({"t":{"dtype":")", dtype,
                     R"(","shape":[8],"data_offsets":[0,)", bytes, "]}}"),
        bytes));
  };
  for (const auto& [dtype, bytes] :
       {std::pair("BF16", 16), std::pair("F16", 16), std::pair("F32", 32),
        std::pair("F64", 64), std::pair("F8_E4M3", 8), std::pair("F8_E5M2", 8),
        std::pair("BOOL", 8), std::pair("I32", 32), std::pair("U64", 64),
        std::pair("F4", 4), std::pair("F6_E2M3", 6)}) {
    EXPECT_THAT(parse(dtype, bytes), IsOk()) << dtype;
    EXPECT_THAT(parse(dtype, bytes + 1), StatusIs(kDataLoss)) << dtype;
  }
  EXPECT_THAT(parse("Q3_K", 5), IsOk());
}

TEST(ParseSafetensors, CutFiles) {
  const std::string file =
      FileOf(R"({"t":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})", 16);
  for (size_t bytes = 0; bytes < file.size(); ++bytes) {
    ASSERT_THAT(Parse(file.substr(0, bytes)),
                StatusIs(kInvalid, HasSubstr("cut")))
        << bytes;
  }
  ASSERT_THAT(Parse(file), IsOk());
  EXPECT_THAT(Parse(file.substr(0, file.size() - 3)),
              StatusIs(kInvalid, AllOf(HasSubstr("need 16 bytes"),
                                       HasSubstr("13 are there"))));
  // Not a safetensors file at all: the first bytes are no length.
  EXPECT_THAT(Parse("version https://git-lfs.github.com/spec/v1\n"),
              StatusIs(kInvalid, HasSubstr("not a safetensors file")));
}

struct BadHeader {
  const char* header;
  size_t data_bytes;
  const char* message;
};

class ParseSafetensorsErrors : public ::testing::TestWithParam<BadHeader> {};

TEST_P(ParseSafetensorsErrors, Contradictions) {
  EXPECT_THAT(Parse(FileOf(GetParam().header, GetParam().data_bytes)),
              StatusIs(kDataLoss, AllOf(HasSubstr("damaged header"),
                                        HasSubstr(GetParam().message))))
      << GetParam().header;
}

INSTANTIATE_TEST_SUITE_P(
    All, ParseSafetensorsErrors,
    ::testing::Values(
        BadHeader{"", 0, "header"}, BadHeader{"{", 0, "header"},
        BadHeader{"[]", 0, "not a JSON object"},
        BadHeader{R"({"t": 3})", 0, "tensor t is not an object"},
        BadHeader{R"({"t": {"shape":[4],"data_offsets":[0,4]}})", 4,
                  "no dtype"},
        BadHeader{R"({"t": {"dtype":7,"shape":[4],"data_offsets":[0,4]}})", 4,
                  "no dtype"},
        BadHeader{R"({"t": {"dtype":"U8","data_offsets":[0,4]}})", 4,
                  "no shape"},
        BadHeader{R"({"t": {"dtype":"U8","shape":4,"data_offsets":[0,4]}})", 4,
                  "no shape"},
        BadHeader{
            R"({"t": {"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})",
            1, "at most 8"},
        BadHeader{R"({"t": {"dtype":"U8","shape":[-4],"data_offsets":[0,4]}})",
                  4, "impossible shape"},
        BadHeader{R"({"t": {"dtype":"U8","shape":[2.5],"data_offsets":[0,4]}})",
                  4, "impossible shape"},
        BadHeader{R"({"t": {"dtype":"U8","shape":["4"],"data_offsets":[0,4]}})",
                  4, "impossible shape"},
        // 2^32 * 2^32 wraps to 0.
        BadHeader{
            R"({"t": {"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})",
            0, "impossible shape"},
        BadHeader{
            R"({"t": {"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,0]}})",
            0, "impossible shape"},
        BadHeader{
            R"({"t": {"dtype":"U8","shape":[99999999999999999999],"data_offsets":[0,0]}})",
            0, "impossible shape"},
        BadHeader{R"({"t": {"dtype":"U8","shape":[4]}})", 4, "no data_offsets"},
        BadHeader{R"({"t": {"dtype":"U8","shape":[4],"data_offsets":[0]}})", 4,
                  "no data_offsets"},
        BadHeader{R"({"t": {"dtype":"U8","shape":[4],"data_offsets":[0,4,8]}})",
                  4, "no data_offsets"},
        BadHeader{R"({"t": {"dtype":"U8","shape":[4],"data_offsets":[4,0]}})",
                  4, "no data_offsets"},
        BadHeader{R"({"t": {"dtype":"U8","shape":[4],"data_offsets":[-4,0]}})",
                  4, "no data_offsets"},
        BadHeader{
            R"({"t": {"dtype":"Q3_K","shape":[4],"data_offsets":[0,18446744073709551612]}})",
            4, "no data_offsets"},
        BadHeader{R"({"t": {"dtype":"F32","shape":[4],"data_offsets":[0,4]}})",
                  4, "needs 16 bytes"},
        BadHeader{R"({"t": {"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                  6, "after a gap"},
        BadHeader{R"({"a": {"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                      "b": {"dtype":"U8","shape":[4],"data_offsets":[6,10]}})",
                  10, "tensor b begins at byte 6 of the data, after a gap"},
        BadHeader{R"({"a": {"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                      "b": {"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
                  6, "tensor b begins at byte 2 of the data, inside"},
        BadHeader{R"({"a": {"dtype":"U8","shape":[4],"data_offsets":[0,4]},
                      "b": {"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                  4, "inside"},
        BadHeader{R"({"t": {"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
                  7, "3 bytes at the end of the file belong to no tensor"}));

TEST(ParseSafetensors, DeepNestingIsRefused) {
  std::string header = R"({"t":)";
  for (int i = 0; i < 100000; ++i) header += '[';
  EXPECT_THAT(Parse(FileOf(header, 0)), StatusIs(kDataLoss));
}

TEST(SafetensorsFile, ReadsWhatTheWriterWrote) {
  TempDir dir;
  const std::string path = dir.File("t.safetensors");
  const std::vector<float> values = {0, 1, -2, 3.5, 4, -5.25};
  ASSERT_THAT(
      testing::WriteSafetensors(
          path,
          {testing::MakeTensor("m", {3, 2}, values, kernels::DType::kBF16),
           testing::MakeTensor("v", {6}, values, kernels::DType::kF32),
           testing::MakeTensor("c", {3, 1, 2}, values, kernels::DType::kF16)}),
      IsOk());
  const auto file = SafetensorsFile::Open(path);
  ASSERT_THAT(file, IsOk());
  for (const char* name : {"m", "v", "c"}) {
    EXPECT_THAT((*file)->ReadFloats(name), IsOkAndHolds(values)) << name;
  }
  const auto matrix = (*file)->View("m");
  ASSERT_THAT(matrix, IsOk());
  EXPECT_EQ(matrix->rows, 3);
  EXPECT_EQ(matrix->cols, 2);
  EXPECT_EQ(matrix->dtype, kernels::DType::kBF16);
  const auto vector = (*file)->View("v");
  ASSERT_THAT(vector, IsOk());
  EXPECT_EQ(vector->rows, 1);
  EXPECT_EQ(vector->cols, 6);
  const auto cube = (*file)->View("c");
  ASSERT_THAT(cube, IsOk());
  EXPECT_EQ(cube->rows, 3);
  EXPECT_EQ(cube->cols, 2);
  EXPECT_THAT((*file)->View("x"),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr(path), HasSubstr("tensor x"))));
}

TEST(SafetensorsFile, OtherDTypesAreListedButNotRead) {
  TempDir dir;
  const std::string path = dir.Write(
      "t.safetensors",
      FileOf(R"({"w":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]},)"
             R"("i":{"dtype":"I32","shape":[2],"data_offsets":[4,12]}})",
             12));
  const auto file = SafetensorsFile::Open(path);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->tensors().size(), 2u);
  EXPECT_THAT(
      (*file)->View("w"),
      StatusIs(kInvalid, AllOf(HasSubstr(path), HasSubstr("tensor w"),
                               HasSubstr("F8_E4M3"), HasSubstr("convert"))));
  EXPECT_THAT((*file)->ReadInt32s("i"), IsOkAndHolds(ElementsAre(0, 0)));
  EXPECT_THAT((*file)->ReadInt32s("w"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT((*file)->ReadInt32s("x"), StatusIs(absl::StatusCode::kNotFound));
}

TEST(SafetensorsFile, OddAddressesAreRefused) {
  TempDir dir;
  std::string header =
      R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
      R"("w":{"dtype":"BF16","shape":[1],"data_offsets":[1,3]}})";
  if (header.size() % 2 != 0) header += ' ';
  const auto file =
      SafetensorsFile::Open(dir.Write("t.safetensors", FileOf(header, 3)));
  ASSERT_THAT(file, IsOk());
  EXPECT_THAT((*file)->View("w"), StatusIs(kInvalid, HasSubstr("odd byte")));
}

TEST(SafetensorsFile, ErrorsNameTheFile) {
  TempDir dir;
  EXPECT_THAT(
      SafetensorsFile::Open(dir.File("none.safetensors")),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("none.safetensors")));
  EXPECT_THAT(SafetensorsFile::Open(dir.Write("empty.safetensors", "")),
              StatusIs(kInvalid, HasSubstr("empty.safetensors")));
  EXPECT_THAT(SafetensorsFile::Open(dir.Write("short.safetensors", "1234567")),
              StatusIs(kInvalid, HasSubstr("short.safetensors")));
}

TEST(SafetensorsFile, GoldenArrays) {
  const auto file =
      SafetensorsFile::Open(FixturePath("tiny_a_bf16/golden.safetensors"));
  ASSERT_THAT(file, IsOk());
  const auto ids = (*file)->ReadInt32s("len7.input_ids");
  ASSERT_THAT(ids, IsOk());
  EXPECT_EQ(ids->size(), 7u);
  const auto logits = (*file)->View("len7.logits");
  ASSERT_THAT(logits, IsOk());
  EXPECT_EQ(logits->rows, 7);
  EXPECT_EQ(logits->cols, 512);
}

}  // namespace
}  // namespace switchyard::model
