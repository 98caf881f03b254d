#include "switchyard/logits/logits_command.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/safetensors.h"
#include "switchyard/logits/npy_writer.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard {
namespace {

using ::switchyard::testing::FixturePath;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Read(const std::string& path) {
  auto content = ReadFile(path, /*max_bytes=*/64 << 20);
  EXPECT_THAT(content, IsOk());
  return content.ok() ? *content : "";
}

bool Exists(const std::string& path) { return MappedFile::Open(path).ok(); }

// The data of a .npy of this shape, its header checked byte by byte.
std::vector<float> ReadNpy(const std::string& path, int64_t rows,
                           int64_t cols) {
  const std::string content = Read(path);
  const std::string start("\x93NUMPY\x01\x00", 8);
  EXPECT_EQ(content.substr(0, 8), start);
  const size_t header_size = static_cast<unsigned char>(content[8]) +
                             256 * static_cast<unsigned char>(content[9]);
  EXPECT_EQ((10 + header_size) % 64, 0u);
  const std::string header = content.substr(10, header_size);
  EXPECT_THAT(header, StartsWith(absl::StrCat(
                          "{'descr': '<f4', 'fortran_order': False, 'shape': (",
                          rows, ", ", cols, "), }")));
  EXPECT_EQ(header.back(), '\n');
  std::vector<float> values(rows * cols);
  EXPECT_EQ(content.size(), 10 + header_size + values.size() * sizeof(float));
  std::memcpy(values.data(), content.data() + 10 + header_size,
              values.size() * sizeof(float));
  return values;
}

class LogitsCommandTest : public ::testing::Test {
 protected:
  LogitsCommandTest() {
    auto golden = model::SafetensorsFile::Open(
        FixturePath("tiny_b_fp32/golden.safetensors"));
    EXPECT_THAT(golden, IsOk());
    options_.model_dir = FixturePath("tiny_b_fp32");
    options_.ids = *(*golden)->ReadInt32s("len65.input_ids");
    options_.out_path = directory_.File("logits.npy");
    options_.threads = 1;
    expected_ = *(*golden)->ReadFloats("len65.logits");
  }

  const TempDir directory_;
  LogitsOptions options_;
  std::vector<float> expected_;  // [65, 389]
};

TEST_F(LogitsCommandTest, WritesTheReferencesLogits) {
  ASSERT_THAT(RunLogits(options_), IsOk());
  const std::vector<float> logits = ReadNpy(options_.out_path, 65, 389);
  ASSERT_EQ(logits.size(), expected_.size());
  for (size_t i = 0; i < logits.size(); ++i) {
    ASSERT_NEAR(logits[i], expected_[i], 1e-4) << i;
  }
}

TEST_F(LogitsCommandTest, SameBytesHoweverTheTokensGoIn) {
  ASSERT_THAT(RunLogits(options_), IsOk());
  const std::string whole = Read(options_.out_path);
  for (int64_t prefill : {1, 7, 64, 65}) {
    options_.prefill = prefill;
    options_.threads = 2;
    options_.out_path = directory_.File(absl::StrCat(prefill, ".npy"));
    ASSERT_THAT(RunLogits(options_), IsOk());
    EXPECT_EQ(Read(options_.out_path), whole) << prefill;
  }
}

TEST_F(LogitsCommandTest, ReplacesAnOlderFileOnlyWhenDone) {
  directory_.Write("logits.npy", "old");
  options_.ids.push_back(389);
  EXPECT_FALSE(RunLogits(options_).ok());
  EXPECT_EQ(Read(options_.out_path), "old");
  options_.ids.pop_back();
  EXPECT_THAT(RunLogits(options_), IsOk());
  EXPECT_EQ(ReadNpy(options_.out_path, 65, 389).size(), expected_.size());
}

TEST_F(LogitsCommandTest, SaysWhatIsWrong) {
  const auto run = [this](auto change) {
    LogitsOptions options = options_;
    change(&options);
    return RunLogits(options);
  };
  using Options = LogitsOptions;
  const auto invalid = absl::StatusCode::kInvalidArgument;
  EXPECT_THAT(run([](Options* o) { o->ids.clear(); }),
              StatusIs(invalid, HasSubstr("--ids")));
  EXPECT_THAT(run([](Options* o) { o->out_path.clear(); }),
              StatusIs(invalid, HasSubstr("--out")));
  EXPECT_THAT(
      run([](Options* o) { o->ids[3] = 389; }),
      StatusIs(invalid, AllOf(HasSubstr("389"), HasSubstr("number 3"))));
  EXPECT_THAT(run([](Options* o) { o->ids[0] = -1; }),
              StatusIs(invalid, HasSubstr("-1")));
  EXPECT_THAT(run([](Options* o) { o->prefill = 66; }),
              StatusIs(invalid, HasSubstr("[0, 65]")));
  EXPECT_THAT(run([](Options* o) { o->prefill = -1; }), StatusIs(invalid));
  EXPECT_THAT(run([](Options* o) { o->threads = -2; }),
              StatusIs(invalid, HasSubstr("--threads")));
  EXPECT_THAT(run([](Options* o) { o->isa = "mmx"; }),
              StatusIs(invalid, HasSubstr("mmx")));
  EXPECT_THAT(run([](Options* o) { o->ids.assign(1025, 1); }),
              StatusIs(invalid, AllOf(HasSubstr("1025"), HasSubstr("1024"))));
  EXPECT_THAT(run([](Options* o) { o->model_dir = "/nowhere"; }),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere")));
  EXPECT_THAT(
      run([](Options* o) { o->out_path = "/nowhere/a.npy"; }),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/nowhere/a.npy")));
  EXPECT_FALSE(Exists(options_.out_path));
}

TEST(NpyWriterTest, NothingIsLeftOfAnUnfinishedFile) {
  const TempDir directory;
  const std::string path = directory.File("a.npy");
  std::string partial;
  {
    auto writer = NpyWriter::Create(path, 2, 2);
    ASSERT_THAT(writer, IsOk());
    partial = absl::StrCat(path, ".partial-", getpid());
    EXPECT_TRUE(Exists(partial));
    ASSERT_THAT((*writer)->Append({1, 2, 3}), IsOk());
  }
  EXPECT_FALSE(Exists(partial));
  EXPECT_FALSE(Exists(path));
}

TEST(NpyWriterTest, ANameThatCannotBeTakenIsAnError) {
  const TempDir directory;
  auto blocked = NpyWriter::Create(directory.File("folder"), 1, 1);
  ASSERT_THAT(blocked, IsOk());
  // The name of a folder cannot be taken.
  directory.Write("folder/file", "");
  EXPECT_THAT(NpyWriter::Create(directory.File("folder"), 1, 1),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr(directory.File("folder"))));
  ASSERT_THAT((*blocked)->Append({1}), IsOk());
  EXPECT_THAT((*blocked)->Finish(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr(directory.File("folder"))));
}

TEST(NpyWriterTest, AFullDiskIsAnError) {
  auto writer = NpyWriter::Create("/dev/full", 1, 1);
  EXPECT_THAT(writer, StatusIs(absl::StatusCode::kResourceExhausted,
                               AllOf(HasSubstr("/dev/full"),
                                     HasSubstr("No space left on device"))));
  struct stat info = {};
  ASSERT_EQ(stat("/dev/full", &info), 0);
  EXPECT_TRUE(S_ISCHR(info.st_mode));
}

TEST(NpyWriterTest, DevicesAreWrittenToAndStay) {
  auto writer = NpyWriter::Create("/dev/null", 1, 2);
  ASSERT_THAT(writer, IsOk());
  ASSERT_THAT((*writer)->Append({1, 2}), IsOk());
  EXPECT_THAT((*writer)->Finish(), IsOk());
  struct stat info = {};
  ASSERT_EQ(stat("/dev/null", &info), 0);
  EXPECT_TRUE(S_ISCHR(info.st_mode));
}

}  // namespace
}  // namespace switchyard
