// What touches the whole process: the log, thread names, time, signals.

#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/config.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/aligned_buffer.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mapped_file.h"
#include "base/memory_limit.h"
#include "base/mutex.h"
#include "base/out_of_memory.h"
#include "base/serve_until_signal.h"
#include "base/shutdown_signal.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/matchers.h"

namespace switchyard {
namespace {

using ::switchyard::testing::FakeClock;
using ::switchyard::testing::IsOkAndHolds;
using ::switchyard::testing::StatusIs;
using ::testing::EndsWith;
using ::testing::ExitedWithCode;
using ::testing::KilledBySignal;
using ::testing::MatchesRegex;
using ::testing::SizeIs;

std::string NameOfThisThread() {
  char name[16] = "";
  pthread_getname_np(pthread_self(), name, sizeof(name));
  return name;
}

TEST(ThreadTest, HasItsName) {
  std::string name;
  StartThread("scheduler", [&] { name = NameOfThisThread(); }).join();
  EXPECT_EQ(name, "scheduler");
  StartThread("a-name-that-is-too-long", [&] {
    name = NameOfThisThread();
  }).join();
  EXPECT_EQ(name, "a-name-that-is-");
}

class LogTest : public ::testing::Test {
 protected:
  ~LogTest() override { SetLogLevel(LogLevel::kInfo); }

  static std::vector<std::string> Lines() {
    return absl::StrSplit(::testing::internal::GetCapturedStderr(), '\n',
                          absl::SkipEmpty());
  }
};

TEST_F(LogTest, WritesTimeLevelThreadAndText) {
  ::testing::internal::CaptureStderr();
  StartThread("worker-1", [] { LogWarning("slow peer 10.0.0.1"); }).join();
  const std::vector<std::string> lines = Lines();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0],
              MatchesRegex("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\\.[0-9]{3}Z W "
                           "\\[worker-1\\] slow peer 10\\.0\\.0\\.1"));
}

TEST_F(LogTest, TextStaysOneLine) {
  ::testing::internal::CaptureStderr();
  LogError("a\nb\x01 é");
  const std::vector<std::string> lines = Lines();
  ASSERT_THAT(lines, SizeIs(1));
  EXPECT_THAT(lines[0], EndsWith("a\\nb\\001 é"));
}

TEST_F(LogTest, DropsWhatIsBelowTheLevel) {
  ::testing::internal::CaptureStderr();
  Log(LogLevel::kDebug, "no");
  SetLogLevel(LogLevel::kError);
  LogWarning("no");
  LogError("yes");
  SetLogLevel(LogLevel::kDebug);
  Log(LogLevel::kDebug, "yes");
  const std::vector<std::string> lines = Lines();
  ASSERT_THAT(lines, SizeIs(2));
  for (const std::string& line : lines) EXPECT_THAT(line, EndsWith("yes"));
}

TEST(ClockTest, RealTimePasses) {
  const absl::Time before = absl::Now();
  const absl::Time now = Clock::Real()->Now();
  EXPECT_GE(now, before);
  EXPECT_LE(now, absl::Now());
}

TEST(ClockTest, FakeTimeMovesByHand) {
  FakeClock clock;
  const absl::Time start = clock.Now();
  EXPECT_EQ(clock.Now(), start);
  clock.Advance(absl::Seconds(5));
  EXPECT_EQ(clock.Now(), start + absl::Seconds(5));
  clock.Set(start);
  EXPECT_EQ(clock.Now(), start);
}

TEST(CondVarTest, WaitEndsAtTheDeadline) {
  Mutex mutex;
  CondVar never;
  MutexLock lock(&mutex);
  const absl::Time deadline = absl::Now() + absl::Milliseconds(5);
  while (never.WaitUntil(&mutex, deadline)) {
  }
  EXPECT_GE(absl::Now() + absl::Milliseconds(1), deadline);
  EXPECT_FALSE(never.WaitUntil(&mutex, absl::InfinitePast()));
}

TEST(CondVarTest, WaitForeverEndsWithTheSignal) {
  Mutex mutex;
  CondVar changed;
  bool ready = false;
  std::thread other = StartThread("other", [&] {
    MutexLock lock(&mutex);
    ready = true;
    changed.Signal();
  });
  {
    MutexLock lock(&mutex);
    while (!ready) changed.WaitUntil(&mutex, absl::InfiniteFuture());
  }
  other.join();
  EXPECT_TRUE(ready);
}

absl::StatusOr<int> Half(int value) {
  if (value % 2 != 0) return absl::InvalidArgumentError("odd");
  return value / 2;
}

absl::StatusOr<int> Quarter(int value) {
  SY_ASSIGN_OR_RETURN(const int half, Half(value));
  SY_RETURN_IF_ERROR(Half(half).status());
  return Half(half);
}

TEST(StatusMacrosTest, ReturnEarly) {
  EXPECT_THAT(Quarter(8), IsOkAndHolds(2));
  EXPECT_THAT(Quarter(6), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(Quarter(1), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(CheckDeathTest, StopsWithPlaceAndCondition) {
  EXPECT_DEATH(SY_CHECK(1 + 1 == 3), "process_test.cc:[0-9]+: broken: 1 \\+ 1");
}

TEST(AlignedBufferTest, IsAlignedAndZero) {
  for (const size_t size : {1, 15, 16, 1000}) {
    AlignedBuffer buffer(size);
    ASSERT_EQ(buffer.size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0);
    for (const float value : buffer) EXPECT_EQ(value, 0.0f);
  }
  EXPECT_TRUE(AlignedBuffer().empty());
  EXPECT_EQ(AlignedBuffer(0).data(), nullptr);
}

TEST(AlignedBufferTest, Moves) {
  AlignedBuffer a(4);
  a[2] = 7;
  AlignedBuffer b(std::move(a));
  EXPECT_EQ(b.span()[2], 7);
  AlignedBuffer c(1);
  c = std::move(b);
  EXPECT_EQ(c.size(), 4);
  EXPECT_EQ(c[2], 7);
}

// The rest of this process may have `bytes` of address space in all.
void LimitAddressSpace(rlim_t bytes) {
  const rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};
  if (setrlimit(RLIMIT_AS, &limit) != 0) std::_Exit(2);
}

// `bytes` more than it has.
void AllowMoreAddressSpace(rlim_t bytes) {
  const auto statm = ReadFile("/proc/self/statm", 4096);
  int64_t pages = 0;
  if (!statm.ok() ||
      !absl::SimpleAtoi(statm->substr(0, statm->find(' ')), &pages)) {
    std::_Exit(2);
  }
  LimitAddressSpace(static_cast<rlim_t>(pages) * sysconf(_SC_PAGESIZE) + bytes);
}

TEST(OutOfMemoryDeathTest, EndsTheProcessWithALine) {
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
  GTEST_SKIP() << "the sanitizer has an allocator and reservations of its own";
#endif
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        ExitWhenOutOfMemory();
        AllowMoreAddressSpace(64 << 20);
        StartThread("greedy", [] {
          std::vector<char> large(1 << 30);
          std::_Exit(large.back());
        }).join();
      },
      ExitedWithCode(1),
      "^out of memory in thread greedy: [1-9][0-9]* MiB of address space, .*"
      "limited to [1-9][0-9]* MiB by ulimit -v");
}

TEST(ThreadDeathTest, NoThreadToBeHadEndsTheProcessWithALine) {
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
  GTEST_SKIP() << "the sanitizer has reservations of its own";
#endif
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        AllowMoreAddressSpace(0);  // not even a stack
        StartThread("unlucky", [] {}).join();
        std::_Exit(0);
      },
      ExitedWithCode(1), "cannot start thread unlucky: .*--threads");
}

TEST(MemoryLimitDeathTest, TheLimitOnAddressSpaceCounts) {
#if defined(ABSL_HAVE_ADDRESS_SANITIZER) || defined(ABSL_HAVE_THREAD_SANITIZER)
  GTEST_SKIP() << "the sanitizer has reservations of its own";
#endif
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        LimitAddressSpace(3 << 28);
        std::_Exit(AvailableMemoryBytes() == 3 << 28 ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

TEST(ShutdownSignalDeathTest, WaitsForTheSignal) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  for (const int signal_number : {SIGTERM, SIGINT}) {
    EXPECT_EXIT(
        {
          BlockShutdownSignals();
          // Of the process, as kubelet and Ctrl-C send it.
          kill(getpid(), signal_number);
          std::_Exit(WaitForShutdownSignal() == signal_number ? 0 : 1);
        },
        ExitedWithCode(0), "");
  }
}

TEST(ShutdownSignalDeathTest, SecondSignalEndsTheProcess) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        BlockShutdownSignals();
        kill(getpid(), SIGTERM);
        WaitForShutdownSignal();
        kill(getpid(), SIGTERM);
        std::_Exit(1);
      },
      KilledBySignal(SIGTERM), "");
}

TEST(ShutdownSignalDeathTest, BrokenPipesAreErrorsOfWrite) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        BlockShutdownSignals();
        int ends[2];
        if (pipe(ends) != 0) std::_Exit(2);
        close(ends[0]);
        std::_Exit(write(ends[1], "x", 1) == -1 && errno == EPIPE ? 0 : 1);
      },
      ExitedWithCode(0), "");
}

// Says on stderr how ServeUntilSignal ended, in a process of its own, which
// has been told to stop before.
void ServeInChild(const std::function<absl::Status()>& load_status) {
  BlockShutdownSignals();
  RequestShutdown();
  const absl::Status status = ServeUntilSignal(
      {.load_status = load_status, .drain = [] { LogInfo("drain"); }});
  LogInfo(absl::StrCat("ended with ", status.ToString()));
  std::_Exit(3);
}

TEST(ServeUntilSignalDeathTest, DrainsAfterTheSignal) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  const std::string want = "draining: signal 15\n.* drain\n.*ended with OK\n";
  EXPECT_EXIT(ServeInChild(nullptr), ExitedWithCode(3), want);
  EXPECT_EXIT(ServeInChild([] { return absl::OkStatus(); }), ExitedWithCode(3),
              want);
}

TEST(ServeUntilSignalDeathTest, ASecondSignalEndsADrain) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        BlockShutdownSignals();
        RequestShutdown();
        (void)ServeUntilSignal({.drain = [] { kill(getpid(), SIGINT); }});
        std::_Exit(3);
      },
      KilledBySignal(SIGINT), "draining: signal 15\n$");
}

TEST(ServeUntilSignalDeathTest, DoesNotWaitForALoad) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(ServeInChild([] { return absl::DeadlineExceededError("soon"); }),
              ExitedWithCode(0), "told to stop while loading\n$");
}

TEST(ServeUntilSignalDeathTest, ReturnsWhyALoadFailed) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(ServeInChild([] { return absl::NotFoundError("no file"); }),
              ExitedWithCode(3),
              // and drains nothing
              "^[^\n]*ended with NOT_FOUND: no file\n$");
}

}  // namespace
}  // namespace switchyard
