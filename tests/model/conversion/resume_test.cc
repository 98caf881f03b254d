// Conversions that were killed, refused, or ran out of room.

#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/compute_pool.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/checkpoint.h"
#include "model/conversion/target_directory.h"
#include "model/manifest.h"
#include "tests/model/conversion/conversion_case.h"
#include "tests/testing/fixture_path.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::model {
namespace {

using ::testing::AllOf;
using testing::FixturePath;
using ::testing::HasSubstr;
using testing::IsOk;
using testing::StatusIs;
using testing::TempDir;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

// What a child that runs `convert` and kills itself at its k-th report leaves.
void ConvertAndDie(const std::string& model, const std::string& out, int k) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    InlinePool pool;
    int reports = 0;
    const absl::Status status =
        Convert(model, out, ParseWeightFormats("q4-q8").value(), &pool,
                [&](int64_t, int64_t) {
                  if (reports++ == k) kill(getpid(), SIGKILL);
                });
    _exit(status.ok() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << k;
}

TEST(ConvertResume, KilledAnywhereItGoesOn) {
  const std::string model = FixturePath("tiny_a_bf16");
  TempDir dir;
  InlinePool pool;
  int reports = 0;
  int64_t total = 0;
  ASSERT_THAT(Convert(model, dir.File("whole"),
                      ParseWeightFormats("q4-q8").value(), &pool,
                      [&](int64_t, int64_t bytes) {
                        ++reports;
                        total = bytes;
                      }),
              IsOk());
  const auto whole = Contents(dir.File("whole"));
  ASSERT_GT(reports, 40);
  size_t most_finished = 0;
  for (int k = 0; k < reports; k += 1 + reports / 13) {
    SCOPED_TRACE(k);
    const std::string out = dir.File(absl::StrCat("out-", k));
    ConvertAndDie(model, out, k);
    EXPECT_THAT(Checkpoint::Open(out).status(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("unfinished conversion")));
    // What is finished stays as it is: the same file, not one like it.
    const std::string journal =
        ReadFile(absl::StrCat(out, "/", kJournalFile), 1 << 20).value();
    std::map<std::string, ino_t> finished;
    for (const auto& [file, content] : whole) {
      if (!absl::StrContains(journal, absl::StrCat("\"", file, "\""))) continue;
      struct stat info;
      ASSERT_EQ(stat(absl::StrCat(out, "/", file).c_str(), &info), 0);
      finished[absl::StrCat(out, "/", file)] = info.st_ino;
    }
    most_finished = std::max(most_finished, finished.size());
    int64_t first_done = -1;
    ASSERT_THAT(Convert(model, out, ParseWeightFormats("q4-q8").value(), &pool,
                        [&](int64_t done, int64_t) {
                          if (first_done < 0) first_done = done;
                        }),
                IsOk());
    EXPECT_EQ(first_done > 0, !finished.empty());
    EXPECT_LT(first_done, total);
    for (const auto& [path, inode] : finished) {
      struct stat info;
      ASSERT_EQ(stat(path.c_str(), &info), 0);
      EXPECT_EQ(info.st_ino, inode) << path;
    }
    EXPECT_EQ(Contents(out), whole);
  }
  EXPECT_GT(most_finished, 3u);
}

TEST(ConvertResume, DamagedJournalsCostWorkOnly) {
  const std::string model = FixturePath("tiny_a_bf16");
  TempDir dir;
  ASSERT_THAT(Convert(model, dir.File("whole"), "q4-q8"), IsOk());
  const auto whole = Contents(dir.File("whole"));
  // Each expert file of 16 experts reports 8 times, and once at its end.
  ConvertAndDie(model, dir.File("cut"), 185);
  const std::string journal =
      ReadFile(dir.File(absl::StrCat("cut/", kJournalFile)), 1 << 20).value();
  ASSERT_GT(std::count(journal.begin(), journal.end(), '\n'), 3);
  const size_t second = journal.find('\n') + 1;
  std::vector<std::string> damaged = {
      "",
      journal.substr(0, 10),
      journal.substr(0, journal.size() - 1),
      journal.substr(0, journal.size() / 2),
      journal + "{\"file\":\"x\"",
      journal.substr(0, second) + "nonsense\n" + journal.substr(second)};
  for (size_t i = 0; i < damaged.size(); ++i) {
    SCOPED_TRACE(i);
    const std::string out = dir.File(absl::StrCat("out-", i));
    std::filesystem::copy(dir.File("cut"), out);
    dir.Write(absl::StrCat("out-", i, "/", kJournalFile), damaged[i]);
    ASSERT_THAT(Convert(model, out, "q4-q8"), IsOk());
    EXPECT_EQ(Contents(out), whole);
  }
  // A finished file that lost its end is written again.
  const std::string out = dir.File("short");
  std::filesystem::copy(dir.File("cut"), out);
  std::filesystem::resize_file(out + "/dense.safetensors", 5000);
  ASSERT_THAT(Convert(model, out, "q4-q8"), IsOk());
  EXPECT_EQ(Contents(out), whole);
}

TEST(ConvertResume, Refusals) {
  const std::string model = FixturePath("tiny_a_bf16");
  TempDir dir;
  constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
  dir.Write("foreign/thesis.tex", "precious");
  EXPECT_THAT(Convert(model, dir.File("foreign"), "q8"),
              StatusIs(kPrecondition, AllOf(HasSubstr("is not empty"),
                                            HasSubstr("thesis.tex"))));
  EXPECT_EQ(Contents(dir.File("foreign")).size(), 1u);

  ConvertAndDie(model, dir.File("cut"), 10);
  const auto before = Contents(dir.File("cut"));
  EXPECT_THAT(Convert(model, dir.File("cut"), "q8"),
              StatusIs(kPrecondition, HasSubstr("another format")));
  EXPECT_THAT(Convert(FixturePath("tiny_b_fp32"), dir.File("cut"), "q4-q8"),
              StatusIs(kPrecondition, HasSubstr("another model")));
  EXPECT_EQ(Contents(dir.File("cut")), before);

  {
    const auto holder = TargetDirectory::Open(dir.File("locked"), "key");
    ASSERT_THAT(holder, IsOk());
    EXPECT_THAT(
        Convert(model, dir.File("locked"), "q8"),
        StatusIs(absl::StatusCode::kUnavailable, HasSubstr("another process")));
  }

  ASSERT_THAT(Convert(model, dir.File("done"), "q8"), IsOk());
  const auto done = Contents(dir.File("done"));
  EXPECT_THAT(Convert(model, dir.File("done"), "q8"),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       HasSubstr("finished conversion")));
  EXPECT_THAT(Convert(dir.File("done"), dir.File("twice"), "q4"),
              StatusIs(kInvalid, HasSubstr("converted already")));
  EXPECT_THAT(Convert(dir.File("none"), dir.File("x"), "q4"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_EQ(Contents(dir.File("done")), done);
}

// A disk that takes no more than the first files.
TEST(ConvertResume, NoRoom) {
  const std::string model = FixturePath("tiny_a_bf16");
  TempDir dir;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {100'000, 100'000};
    setrlimit(RLIMIT_FSIZE, &limit);
    const absl::Status status = Convert(model, dir.File("out"), "q4-q8");
    const std::string message(status.message());
    const bool good = absl::IsResourceExhausted(status) &&
                      absl::StrContains(message, "dense.safetensors.partial") &&
                      absl::StrContains(message, "make room");
    if (!good) fprintf(stderr, "%s\n", status.ToString().c_str());
    _exit(good ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  for (const auto& entry :
       std::filesystem::directory_iterator(dir.File("out"))) {
    EXPECT_EQ(entry.path().filename().string(), kJournalFile);
  }
  EXPECT_THAT(Convert(model, dir.File("out"), "q4-q8"), IsOk());
}

}  // namespace
}  // namespace switchyard::model
