#include "rpc/address.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "grpcpp/impl/service_type.h"
#include "gtest/gtest.h"
#include "rpc/server.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::rpc {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::testing::HasSubstr;

TEST(AddressTest, HostsWithPortsAndPaths) {
  for (const char* good : {"a:1", "10.0.0.1:7001", "[::1]:65535",
                           "name.of.pod:80", "unix:/run/expert.sock"}) {
    EXPECT_THAT(CheckAddress(good), IsOk()) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("host"), std::string(":7001"),
        std::string("host:"), std::string("host:0"), std::string("host:65536"),
        std::string("host:x"), std::string("unix:"), std::string("unix:a"),
        "unix:/" + std::string(107, 'x')}) {
    EXPECT_THAT(CheckAddress(bad),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(bad)));
  }
}

TEST(AddressTest, WhatSharesThisMachine) {
  for (const char* here :
       {"unix:/x", "127.0.0.1:1", "127.1.2.3:1", "[::1]:5", "localhost:7"}) {
    EXPECT_TRUE(IsLocal(here)) << here;
  }
  for (const char* there : {"10.0.0.1:1", "localhostess:7", "[::2]:5"}) {
    EXPECT_FALSE(IsLocal(there)) << there;
  }
}

TEST(AddressTest, WhatIsListenedOn) {
  EXPECT_EQ(ListeningAddress("0.0.0.0", 7), "0.0.0.0:7");
  EXPECT_EQ(ListeningAddress("::", 7), "[::]:7");
  EXPECT_EQ(ListeningAddress("unix:/x", 7), "unix:/x");
  EXPECT_EQ(TcpHost("unix:/x"), "127.0.0.1");
  EXPECT_EQ(TcpHost("::"), "::");
}

class UnixSocketTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Server>> Listen() {
    return Server::Start(address_, 0, {});
  }

  TempDir directory_;
  const std::string path_ = directory_.path() + "/socket";
  const std::string address_ = "unix:" + path_;
};

TEST_F(UnixSocketTest, OnlyOwnerAndGroupMayConnect) {
  const auto server = Listen();
  ASSERT_THAT(server, IsOk());
  struct stat what = {};
  ASSERT_EQ(stat(path_.c_str(), &what), 0);
  EXPECT_TRUE(S_ISSOCK(what.st_mode));
  EXPECT_EQ(what.st_mode & 0777, 0660);
}

TEST_F(UnixSocketTest, IsNotTakenFromALiveProcess) {
  const auto server = Listen();
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT(Listen(), StatusIs(absl::StatusCode::kUnavailable,
                                 HasSubstr("another process")));
  struct stat what = {};
  EXPECT_EQ(stat(path_.c_str(), &what), 0);
}

TEST_F(UnixSocketTest, IsTakenOverFromADeadOne) {
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  std::memcpy(name.sun_path, path_.data(), path_.size());
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof(name)), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  close(fd);  // the file stays, as after kill -9
  EXPECT_THAT(Listen(), IsOk());
}

TEST_F(UnixSocketTest, AnotherFileIsLeftAlone) {
  std::ofstream(path_) << "precious";
  EXPECT_THAT(Listen(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr(path_)));
  std::string content;
  std::ifstream(path_) >> content;
  EXPECT_EQ(content, "precious");
}

TEST_F(UnixSocketTest, AFolderThatIsNotThereIsAnError) {
  EXPECT_THAT(
      Server::Start("unix:" + directory_.path() + "/no/socket", 0, {}),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr("/no/socket")));
}

}  // namespace
}  // namespace switchyard::rpc
