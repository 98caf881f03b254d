#include "router/access/client_key.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// As `printf %s open-sesame | sha256sum` prints it.
constexpr char kHash[] =
    "d7ecdf25eaf3deba0f2628771dbdd22d4138ab6cf38f91ed02a2ca0dec7c8ab7";

TEST(ClientKeyTest, HashesAsTheCommandInTheHelp) {
  EXPECT_EQ(HashOfKey("open-sesame"), kHash);
}

TEST(ClientKeyTest, ReadsAFile) {
  const auto clients = ParseKeyFile(
      absl::StrCat("# the team\n\nalice ", kHash, "\tadmin rpm=60\r\nbob ",
                   HashOfKey("b"), " tpm=1000"),
      {.requests_per_minute = 7, .tokens_per_minute = 8});
  ASSERT_THAT(clients, IsOk());
  ASSERT_THAT(*clients, SizeIs(2));
  const ClientKey& alice = (*clients)[0];
  EXPECT_EQ(alice.name, "alice");
  EXPECT_EQ(alice.sha256, kHash);
  EXPECT_TRUE(alice.admin);
  EXPECT_EQ(alice.limits.requests_per_minute, 60);
  EXPECT_EQ(alice.limits.tokens_per_minute, 8);
  const ClientKey& bob = (*clients)[1];
  EXPECT_FALSE(bob.admin);
  EXPECT_EQ(bob.limits.requests_per_minute, 7);
  EXPECT_EQ(bob.limits.tokens_per_minute, 1000);
}

TEST(ClientKeyTest, SaysWhichLineIsWrongAndShowsNoKey) {
  const auto error = [](const std::string& line) {
    return ParseKeyFile(absl::StrCat("# first\n", line), {}).status();
  };
  EXPECT_THAT(error("alice open-sesame"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("line 2"), HasSubstr("sha256sum"),
                             Not(HasSubstr("open-sesame")))));
  EXPECT_THAT(error("alice"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(
      error(absl::StrCat("alice ", kHash, " rpm=many")),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("rpm=many")));
  EXPECT_THAT(error(absl::StrCat("alice ", kHash, " tpm=-1")),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(error(absl::StrCat("alice ", kHash, " root")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("root")));
  EXPECT_THAT(error(absl::StrCat("alice ", kHash, "\nbob ", kHash)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("line 3"), HasSubstr("bob"))));
  const auto empty = ParseKeyFile("\n# nobody\n", {});
  ASSERT_THAT(empty, IsOk());
  EXPECT_THAT(*empty, IsEmpty());
}

TEST(ClientKeyTest, FindsWhoseKeyItIs) {
  const std::vector<ClientKey> clients = {
      {.name = "a", .sha256 = HashOfKey("one")},
      {.name = "b", .sha256 = HashOfKey("two")}};
  ASSERT_NE(FindClient(clients, "two"), nullptr);
  EXPECT_EQ(FindClient(clients, "two")->name, "b");
  EXPECT_EQ(FindClient(clients, "One"), nullptr);
  EXPECT_EQ(FindClient(clients, ""), nullptr);
  // A hash is no key.
  EXPECT_EQ(FindClient(clients, HashOfKey("one")), nullptr);
}

}  // namespace
}  // namespace switchyard::router
