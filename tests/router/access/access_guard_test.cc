#include "router/access/access_guard.h"

#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::router {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Verdict = AccessGuard::Verdict;

constexpr char kChat[] = "/v1/chat/completions";

class AccessGuardTest : public ::testing::Test {
 protected:
  std::unique_ptr<AccessGuard> Make(AccessGuard::Options options) {
    options.clock = &clock_;
    options.registry = registry_.get();
    auto guard = AccessGuard::Create(std::move(options));
    EXPECT_THAT(guard, IsOk());
    return guard.ok() ? *std::move(guard) : nullptr;
  }
  void WriteKeys(const std::string& text) {
    std::ofstream(File()) << text;
    clock_.Advance(absl::Seconds(2));
  }
  std::string File() const { return directory_.File("keys"); }

  testing::FakeClock clock_;
  const std::unique_ptr<metrics::Registry> registry_ =
      metrics::Registry::Create();
  const testing::TempDir directory_;
};

TEST_F(AccessGuardTest, WithoutKeysEverybodyIsWelcome) {
  const auto guard = Make({});
  EXPECT_EQ(guard->Judge("POST", kChat, "").verdict, Verdict::kWelcome);
  EXPECT_EQ(guard->Judge("POST", "/flush_cache", "x").verdict,
            Verdict::kWelcome);
}

TEST_F(AccessGuardTest, EveryPathWantsAKeyButThoseOfProbes) {
  const auto guard = Make({.api_keys = {"one", "two"}});
  for (const char* path : {kChat, "/v1/models", "/tokenize", "/v1/loads",
                           "/topology", "//livez", "/livez/x", "/metrics2"}) {
    EXPECT_EQ(guard->Judge("GET", path, "").verdict, Verdict::kUnauthorized)
        << path;
    EXPECT_EQ(guard->Judge("GET", path, "three").verdict,
              Verdict::kUnauthorized);
    const auto decision = guard->Judge("GET", path, "two");
    EXPECT_EQ(decision.verdict, Verdict::kWelcome);
    EXPECT_EQ(decision.client, "key-2");
  }
  for (const char* path : {"/livez", "/readyz", "/health", "/metrics", "/"}) {
    EXPECT_EQ(guard->Judge("GET", path, "").verdict, Verdict::kWelcome) << path;
  }
  EXPECT_THAT(guard->Judge("GET", kChat, "secret").message,
              Not(HasSubstr("secret")));
  EXPECT_THAT(registry_->Expose(),
              HasSubstr("switchyard_router_requests_refused_total{reason="
                        "\"unauthorized\"} 17"));
}

TEST_F(AccessGuardTest, WhatConcernsAllIsForAdmins) {
  const auto guard = Make({.api_keys = {"one"}, .admin_api_key = "root"});
  EXPECT_EQ(guard->Judge("POST", "/flush_cache", "one").verdict,
            Verdict::kForbidden);
  EXPECT_EQ(guard->Judge("POST", "/flush_cache", "root").verdict,
            Verdict::kWelcome);
  EXPECT_EQ(guard->Judge("POST", kChat, "root").verdict, Verdict::kWelcome);
  // Where no admin is named, every client is trusted with it.
  EXPECT_EQ(
      Make({.api_keys = {"one"}})->Judge("POST", "/flush_cache", "one").verdict,
      Verdict::kWelcome);
}

TEST_F(AccessGuardTest, TooManyRequestsAndTooManyTokens) {
  WriteKeys(absl::StrCat("alice ", HashOfKey("a"), " rpm=2\nbob ",
                         HashOfKey("b"), " tpm=100\n"));
  const auto guard = Make({.key_file = File()});
  EXPECT_EQ(guard->Judge("POST", kChat, "a").verdict, Verdict::kWelcome);
  EXPECT_EQ(guard->Judge("POST", kChat, "a").verdict, Verdict::kWelcome);
  const auto refused = guard->Judge("POST", kChat, "a");
  EXPECT_EQ(refused.verdict, Verdict::kTooMany);
  EXPECT_NEAR(absl::ToDoubleSeconds(refused.retry_after), 30, 0.01);
  EXPECT_THAT(refused.message,
              AllOf(HasSubstr("2 requests"), HasSubstr("30s")));
  // Questions that make no tokens are free.
  EXPECT_EQ(guard->Judge("GET", "/v1/models", "a").verdict, Verdict::kWelcome);

  EXPECT_EQ(guard->Judge("POST", kChat, "b").client, "bob");
  guard->Charge("bob", 150);
  const auto owing = guard->Judge("POST", kChat, "b");
  EXPECT_EQ(owing.verdict, Verdict::kTooMany);
  EXPECT_NEAR(absl::ToDoubleSeconds(owing.retry_after), 30, 0.01);
  clock_.Advance(absl::Seconds(31));
  EXPECT_EQ(guard->Judge("POST", kChat, "b").verdict, Verdict::kWelcome);
}

TEST_F(AccessGuardTest, LimitsOfAllTogetherWithoutKeys) {
  const auto guard = Make({.limits = {.requests_per_minute = 1}});
  EXPECT_EQ(guard->Judge("POST", kChat, "x").verdict, Verdict::kWelcome);
  EXPECT_EQ(guard->Judge("POST", kChat, "y").verdict, Verdict::kTooMany);
}

TEST_F(AccessGuardTest, AChangedFileCountsAndAWrongOneDoesNot) {
  WriteKeys(absl::StrCat("alice ", HashOfKey("a"), "\n"));
  const auto guard = Make({.key_file = File()});
  EXPECT_EQ(guard->Judge("GET", kChat, "a").verdict, Verdict::kWelcome);
  WriteKeys(absl::StrCat("bobby ", HashOfKey("b"), "\n# more\n"));
  EXPECT_EQ(guard->Judge("GET", kChat, "a").verdict, Verdict::kUnauthorized);
  EXPECT_EQ(guard->Judge("GET", kChat, "b").verdict, Verdict::kWelcome);
  WriteKeys("bob forgot the hash, and it was late\n");
  EXPECT_EQ(guard->Judge("GET", kChat, "b").verdict, Verdict::kWelcome);
  std::remove(File().c_str());
  clock_.Advance(absl::Seconds(2));
  EXPECT_EQ(guard->Judge("GET", kChat, "b").verdict, Verdict::kWelcome);
}

TEST_F(AccessGuardTest, BadOptions) {
  EXPECT_THAT(AccessGuard::Create({.api_keys = {"a", ""}}),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(
      AccessGuard::Create({.key_file = "/no/such/file"}),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such/file")));
  WriteKeys("# nobody\n");
  EXPECT_THAT(AccessGuard::Create({.key_file = File()}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(File())));
}

TEST(KeyOfTest, BothHeaders) {
  const std::string bearer = "Bearer  abc ", lower = "bearer abc",
                    basic = "Basic abc", plain = "abc";
  EXPECT_EQ(KeyOf(&bearer, nullptr), "abc");
  EXPECT_EQ(KeyOf(&lower, nullptr), "abc");
  EXPECT_EQ(KeyOf(&basic, nullptr), "");
  EXPECT_EQ(KeyOf(nullptr, &plain), "abc");
  EXPECT_EQ(KeyOf(nullptr, nullptr), "");
}

}  // namespace
}  // namespace switchyard::router
