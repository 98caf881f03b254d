#include "base/cgroup.h"

#include "base/memory_limit.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/temp_dir.h"

namespace switchyard {
namespace {

using ::switchyard::testing::TempDir;
using ::testing::Optional;

TEST(CgroupTest, NoLimitsWithoutControlGroups) {
  TempDir root;
  EXPECT_EQ(CgroupCpuLimit(root.path()), std::nullopt);
  EXPECT_EQ(CgroupMemoryLimitBytes(root.path()), std::nullopt);
}

TEST(CgroupTest, Version2TakesTheLeastOfTheGroupAndItsParents) {
  TempDir root;
  root.Write("proc/self/cgroup", "0::/system.slice/worker.service\n");
  root.Write("sys/fs/cgroup/system.slice/worker.service/cpu.max",
             "max 100000\n");
  root.Write("sys/fs/cgroup/system.slice/worker.service/memory.max", "max\n");
  EXPECT_EQ(CgroupCpuLimit(root.path()), std::nullopt);
  EXPECT_EQ(CgroupMemoryLimitBytes(root.path()), std::nullopt);

  root.Write("sys/fs/cgroup/system.slice/cpu.max", "250000 100000\n");
  root.Write("sys/fs/cgroup/system.slice/memory.max", "1000\n");
  EXPECT_THAT(CgroupCpuLimit(root.path()), Optional(2.5));
  EXPECT_THAT(CgroupMemoryLimitBytes(root.path()), Optional(1000));

  root.Write("sys/fs/cgroup/system.slice/worker.service/cpu.max",
             "50000 100000\n");
  root.Write("sys/fs/cgroup/system.slice/worker.service/memory.max", "2000\n");
  EXPECT_THAT(CgroupCpuLimit(root.path()), Optional(0.5));
  EXPECT_THAT(CgroupMemoryLimitBytes(root.path()), Optional(1000));
}

// In a container: the path is the host's, the mount is the container's group.
TEST(CgroupTest, Version2InAContainer) {
  TempDir root;
  root.Write("proc/self/cgroup", "0::/kubepods/pod1/container1\n");
  root.Write("sys/fs/cgroup/cpu.max", "150000 100000\n");
  root.Write("sys/fs/cgroup/memory.max", "4294967296\n");
  EXPECT_THAT(CgroupCpuLimit(root.path()), Optional(1.5));
  EXPECT_THAT(CgroupMemoryLimitBytes(root.path()), Optional(4294967296));

  root.Write("proc/self/cgroup", "0::/\n");
  EXPECT_THAT(CgroupCpuLimit(root.path()), Optional(1.5));
}

TEST(CgroupTest, Version1) {
  TempDir root;
  root.Write("proc/self/cgroup",
             "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n3:cpuset:/\n");
  root.Write("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "-1\n");
  root.Write("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(CgroupCpuLimit(root.path()), std::nullopt);

  root.Write("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "300000\n");
  root.Write("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
             "536870912\n");
  EXPECT_THAT(CgroupCpuLimit(root.path()), Optional(3.0));
  EXPECT_THAT(CgroupMemoryLimitBytes(root.path()), Optional(536870912));
}

TEST(CgroupTest, NonsenseIsNoLimit) {
  TempDir root;
  root.Write("proc/self/cgroup", "nonsense\n0::/\n");
  root.Write("sys/fs/cgroup/cpu.max", "many 0\n");
  root.Write("sys/fs/cgroup/memory.max", "\n");
  EXPECT_EQ(CgroupCpuLimit(root.path()), std::nullopt);
  EXPECT_EQ(CgroupMemoryLimitBytes(root.path()), std::nullopt);
}

TEST(MemoryLimitTest, IsThatOfThisMachine) {
  EXPECT_GE(AvailableMemoryBytes(), 16 << 20);  // this test alone needs as much
  EXPECT_LT(AvailableMemoryBytes(), int64_t{1} << 50);
}

}  // namespace
}  // namespace switchyard
