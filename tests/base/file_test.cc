// base/mapped_file.h, and the TempDir that its tests stand on.

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard {
namespace {

using ::switchyard::testing::FixturePath;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::IsOkAndHolds;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(MappedFileTest, HoldsTheBytes) {
  TempDir dir;
  const std::string path = dir.Write("a/b.bin", absl::string_view("x\0y", 3));
  const auto file = MappedFile::Open(path);
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->path(), path);
  EXPECT_THAT((*file)->bytes(), ElementsAre('x', 0, 'y'));
  // The mapping stays after the name is gone.
  std::filesystem::remove(path);
  EXPECT_THAT((*file)->bytes(), ElementsAre('x', 0, 'y'));
}

TEST(MappedFileTest, ErrorsNameThePath) {
  TempDir dir;
  EXPECT_THAT(
      MappedFile::Open(dir.File("none")),
      StatusIs(absl::StatusCode::kNotFound,
               AllOf(HasSubstr(dir.File("none")), HasSubstr("No such file"))));
  EXPECT_THAT(MappedFile::Open(dir.path()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr(dir.path()), HasSubstr("directory"))));
  EXPECT_THAT(MappedFile::Open(dir.Write("empty", "")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("empty")));
}

TEST(MappedFileTest, NoPermission) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  TempDir dir;
  const std::string path = dir.Write("secret", "x");
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  EXPECT_THAT(MappedFile::Open(path),
              StatusIs(absl::StatusCode::kPermissionDenied));
}

TEST(ReadFileTest, ReadsUpToTheLimit) {
  TempDir dir;
  const std::string path = dir.Write("a", std::string(100'000, 'a'));
  EXPECT_THAT(ReadFile(path, 100'000), IsOkAndHolds(std::string(100'000, 'a')));
  EXPECT_THAT(ReadFile(path, 99'999),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr(path), HasSubstr("99999"))));
  EXPECT_THAT(ReadFile(dir.Write("empty", ""), 0), IsOkAndHolds(""));
  EXPECT_THAT(ReadFile(dir.File("none"), 10),
              StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(ReadFile(dir.path(), 10),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(ReadFileTest, FilesThatDoNotTellTheirSize) {
  EXPECT_THAT(ReadFile("/proc/self/stat", 4096), IsOkAndHolds(HasSubstr("(")));
  EXPECT_THAT(ReadFile("/proc/self/stat", 3),
              StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(ReadFileTest, DoesNotWaitForAFifo) {
  TempDir dir;
  ASSERT_EQ(mkfifo(dir.File("fifo").c_str(), 0600), 0);
  EXPECT_THAT(ReadFile(dir.File("fifo"), 10),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(TempDirTest, IsRemovedWithAllThatIsInIt) {
  std::string path;
  {
    TempDir dir;
    path = dir.path();
    dir.Write("a/b/c", "x");
    EXPECT_TRUE(std::filesystem::exists(path + "/a/b/c"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
}

TEST(FixturePathTest, Exists) {
  EXPECT_TRUE(std::filesystem::exists(FixturePath("README.md")));
}

}  // namespace
}  // namespace switchyard
