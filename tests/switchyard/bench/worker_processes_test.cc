#include "switchyard/bench/worker_processes.h"

#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mapped_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/checkpoint_writer.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::bench {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::switchyard::testing::WriteTextFile;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using ::testing::UnorderedElementsAre;

constexpr absl::Duration kDeadline = absl::Seconds(30);

class WorkerProcessesTest : public ::testing::Test {
 protected:
  // A shell script in the worker's place.
  std::string Script(const std::string& text) {
    const std::string path = directory_.File("worker");
    EXPECT_THAT(WriteTextFile(path, absl::StrCat("#!/bin/sh\n", text, "\n")),
                IsOk());
    EXPECT_EQ(chmod(path.c_str(), 0700), 0);
    return path;
  }

  // What the file holds once it has `lines` lines.
  std::vector<std::string> WaitForLines(const std::string& path, size_t lines) {
    const absl::Time give_up = absl::Now() + kDeadline;
    std::vector<std::string> found;
    while (absl::Now() < give_up) {
      const auto text = ReadFile(path, 1 << 20);
      if (text.ok()) found = absl::StrSplit(*text, '\n', absl::SkipEmpty());
      if (found.size() >= lines) break;
      std::this_thread::yield();
    }
    return found;
  }

  const TempDir directory_;
};

TEST_F(WorkerProcessesTest, EachGetsItsSliceAndAddress) {
  const std::string said = directory_.File("said");
  for (const SocketKind transport : {SocketKind::kTcp, SocketKind::kUnix}) {
    std::remove(said.c_str());
    auto workers = WorkerProcesses::Start(
        {.model_dir = "/models/a b",
         .count = 2,
         .transport = transport,
         .threads = 3,
         .isa = "scalar",
         .weights = "map",
         .binary = Script(
             absl::StrCat("echo \"$@\" >> ", said, "; exec sleep 1000"))});
    ASSERT_THAT(workers.status(), IsOk());
    const std::vector<std::string> lines = WaitForLines(said, 2);
    ASSERT_EQ(lines.size(), 2u);
    EXPECT_THAT(lines, UnorderedElementsAre(HasSubstr("--slice=1/2"),
                                            HasSubstr("--slice=2/2")));
    for (const std::string& line : lines) {
      EXPECT_THAT(
          line,
          AllOf(HasSubstr("--model=/models/a b"), HasSubstr("--threads=3"),
                HasSubstr("--isa=scalar"), HasSubstr("--weights=map")));
    }
    const std::vector<std::string>& addresses = (*workers)->addresses();
    ASSERT_EQ(addresses.size(), 2u);
    EXPECT_NE(addresses[0], addresses[1]);
    EXPECT_THAT(
        addresses[0],
        StartsWith(transport == SocketKind::kTcp ? "127.0.0.1:" : "unix:/"));
    EXPECT_THAT((*workers)->CheckAlive(), IsOk());
    EXPECT_GT((*workers)->ResidentBytes(), 0);
  }
}

TEST_F(WorkerProcessesTest, TheyEndWithIt) {
  const std::string said = directory_.File("said");
  auto workers = WorkerProcesses::Start(
      {.model_dir = "m",
       .count = 1,
       .binary =
           Script(absl::StrCat("echo $$ >> ", said, "; exec sleep 1000"))});
  ASSERT_THAT(workers.status(), IsOk());
  const std::vector<std::string> lines = WaitForLines(said, 1);
  ASSERT_EQ(lines.size(), 1u);
  const pid_t pid = std::stoi(lines[0]);
  EXPECT_EQ(kill(pid, 0), 0);
  workers->reset();
  EXPECT_NE(kill(pid, 0), 0);
}

TEST_F(WorkerProcessesTest, ADeadOnesLastWordsAreTold) {
  auto workers = WorkerProcesses::Start(
      {.model_dir = "m",
       .count = 1,
       .binary = Script("echo no such model >&2; exit 1")});
  ASSERT_THAT(workers.status(), IsOk());
  const absl::Time give_up = absl::Now() + kDeadline;
  absl::Status alive;
  while (alive.ok() && absl::Now() < give_up) alive = (*workers)->CheckAlive();
  EXPECT_THAT(alive, StatusIs(absl::StatusCode::kUnavailable,
                              AllOf(HasSubstr((*workers)->addresses()[0]),
                                    HasSubstr("no such model"))));
}

TEST_F(WorkerProcessesTest, NoSuchProgram) {
  EXPECT_THAT(
      WorkerProcesses::Start(
          {.model_dir = "m", .count = 1, .binary = directory_.File("none")})
          .status(),
      StatusIs(absl::StatusCode::kNotFound,
               AllOf(HasSubstr("none"), HasSubstr("--expert-workers"))));
}

}  // namespace
}  // namespace switchyard::bench
