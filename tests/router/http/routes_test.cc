#include "router/http/routes.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace switchyard::router {
namespace {

using ::testing::ElementsAre;

void Nothing(const RoutedRequest&, const std::shared_ptr<ResponseWriter>&) {}

TEST(RoutesTest, MatchesWholePathsAndVariables) {
  Routes routes;
  routes.Add("POST", "/v1/things", Nothing);
  routes.Add("POST", "/v1/things/count", Nothing);
  routes.Add("GET", "/v1/things/{id}", Nothing);
  routes.Add("DELETE", "/v1/things/{id}", Nothing);
  routes.Add("POST", "/v1/things/{id}/cancel", Nothing);
  routes.Add("GET", "/v1/models/{id...}", Nothing);

  EXPECT_EQ(routes.Find("POST", "/v1/things").pattern, "/v1/things");
  EXPECT_NE(routes.Find("POST", "/v1/things").handler, nullptr);
  const auto get = routes.Find("GET", "/v1/things/a%2Fb");
  EXPECT_EQ(get.pattern, "/v1/things/{id}");
  EXPECT_THAT(get.variables, ElementsAre("a/b"));
  EXPECT_THAT(routes.Find("POST", "/v1/things/7/cancel").variables,
              ElementsAre("7"));
  // What was added first counts.
  EXPECT_EQ(routes.Find("POST", "/v1/things/count").pattern,
            "/v1/things/count");
  EXPECT_THAT(routes.Find("GET", "/v1/models/Qwen/Qwen3-Next").variables,
              ElementsAre("Qwen/Qwen3-Next"));
  for (const char* path :
       {"/", "", "/v1", "/v1/things/", "/v1/models", "/v1/models/",
        "/v1/things/7/other", "/v1/things/7/cancel/9", "v1/things"}) {
    EXPECT_EQ(routes.Find("GET", path).pattern, "") << path;
  }
}

TEST(RoutesTest, TellsWhichMethodsAPathHas) {
  Routes routes;
  routes.Add("GET", "/things/{id}", Nothing);
  routes.Add("DELETE", "/things/{id}", Nothing);
  const auto put = routes.Find("PUT", "/things/1");
  EXPECT_EQ(put.handler, nullptr);
  EXPECT_EQ(put.allowed, "GET, HEAD, DELETE, OPTIONS");
  EXPECT_NE(routes.Find("HEAD", "/things/1").handler, nullptr);
  EXPECT_EQ(routes.Find("POST", "/other").allowed, "");
}

TEST(RoutesTest, LeavesWhatIsNoEscape) {
  Routes routes;
  routes.Add("GET", "/{x}", Nothing);
  EXPECT_THAT(routes.Find("GET", "/a%2").variables, ElementsAre("a%2"));
  EXPECT_THAT(routes.Find("GET", "/%zz%41").variables, ElementsAre("%zzA"));
}

}  // namespace
}  // namespace switchyard::router
