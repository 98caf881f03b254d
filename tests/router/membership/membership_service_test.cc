// Workers' clients, the service and the registry together, over loopback.

#include "router/service/membership_service.h"

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "fabric/client/membership_client.h"
#include "fabric/wire/membership_codec.h"
#include "gmock/gmock.h"
#include "grpcpp/client_context.h"
#include "gtest/gtest.h"
#include "proto/membership.grpc.pb.h"
#include "router/membership/attention_members.h"
#include "router/membership/registry.h"
#include "router/routing/least_loaded.h"
#include "rpc/channel.h"
#include "rpc/server.h"
#include "tests/fabric/fabric_members.h"
#include "tests/testing/matchers.h"
#include "tests/testing/scripted_attention_client.h"

namespace switchyard::router {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

// What a router has for membership. Leases are long, so that a busy machine
// ends none; tests of them say so.
class Router {
 public:
  explicit Router(absl::Duration lease = absl::Seconds(30), int port = 0,
                  absl::Duration settle = absl::ZeroDuration()) {
    MemberRegistry::Options options;
    options.heartbeat = absl::Milliseconds(20);
    options.lease = lease;
    options.settle_time = settle;
    registry_ = std::make_unique<MemberRegistry>(options);
    service_ =
        MembershipService::Create({.registry = registry_.get(),
                                   .min_update_interval = absl::Milliseconds(5),
                                   .heat_interval = absl::Milliseconds(20),
                                   .tick = absl::Milliseconds(5)});
    registry_->SetListener([this] {
      service_->Changed();
      MutexLock lock(&mutex_);
      if (listener_) listener_();
    });
    grpc::Service* const services[] = {service_->grpc_service()};
    auto server = rpc::Server::Start("127.0.0.1", port, services);
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  ~Router() {
    service_->Close();
    server_->Shutdown(absl::ZeroDuration());
    server_ = nullptr;
  }

  int port() const { return server_->port(); }
  std::string address() const { return absl::StrCat("127.0.0.1:", port()); }
  MemberRegistry* registry() { return registry_.get(); }
  void Listen(std::function<void()> listener) {
    MutexLock lock(&mutex_);
    listener_ = std::move(listener);
  }

 private:
  Mutex mutex_;
  std::function<void()> listener_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<MemberRegistry> registry_;
  std::unique_ptr<MembershipService> service_;
  std::unique_ptr<rpc::Server> server_;
};

// A member that tells when its view has changed.
class Worker {
 public:
  Worker(std::vector<std::string> routers, fabric::Member member,
         std::function<std::vector<uint32_t>()> take_heat = nullptr)
      : member_(std::move(member)) {
    fabric::MembershipClientOptions options;
    options.routers = std::move(routers);
    options.on_view = [this] {
      MutexLock lock(&mutex_);
      changed_.SignalAll();
    };
    options.take_heat = std::move(take_heat);
    options.heat_interval = absl::Milliseconds(20);
    options.max_backoff = absl::Milliseconds(100);
    auto client = fabric::MembershipClient::Start(std::move(options), member_);
    EXPECT_TRUE(client.ok()) << client.status();
    client_ = *std::move(client);
  }

  // Waits until the view is such.
  bool Sees(const std::function<bool(const fabric::View&)>& such) {
    const absl::Time deadline = absl::Now() + kPatience;
    MutexLock lock(&mutex_);
    while (!such(*client_->view())) {
      if (absl::Now() >= deadline) return false;
      changed_.WaitUntil(&mutex_,
                         std::min(deadline, absl::Now() + absl::Seconds(1)));
    }
    return true;
  }
  bool SeesIds(const std::vector<std::string>& ids) {
    return Sees([&](const fabric::View& view) {
      std::vector<std::string> seen;
      for (const auto& member : view.members) {
        seen.push_back(member.instance_id);
      }
      return seen == ids;
    });
  }
  fabric::MembershipClient* client() { return client_.get(); }
  fabric::Member* member() { return &member_; }
  void Leave() { client_ = nullptr; }

 private:
  Mutex mutex_;
  CondVar changed_;
  fabric::Member member_;
  std::unique_ptr<fabric::MembershipClient> client_;
};

TEST(Membership, WorkersSeeOneAnotherAndWhatChanges) {
  Router router;
  Worker a({router.address()}, fabric::ExpertMember("a", "127.0.0.1:1"));
  Worker b({router.address()}, fabric::AttentionMember("b", "127.0.0.1:2"));
  EXPECT_TRUE(a.SeesIds({"a", "b"}));
  EXPECT_TRUE(b.SeesIds({"a", "b"}));
  a.member()->holdings.Insert(2, 2);
  a.client()->Update(*a.member());
  EXPECT_TRUE(b.Sees([](const fabric::View& view) {
    return view.settled && view.Find("a")->holdings.Contains(2, 2);
  }));
}

TEST(Membership, ADrainedWorkerIsGoneAtOnce) {
  Router router(/*lease=*/absl::Hours(1));
  Worker a({router.address()}, fabric::ExpertMember("a", "127.0.0.1:1"));
  Worker b({router.address()}, fabric::ExpertMember("b", "127.0.0.1:2"));
  ASSERT_TRUE(b.SeesIds({"a", "b"}));
  a.member()->state = fabric::MemberState::kDraining;
  a.client()->Update(*a.member());
  EXPECT_TRUE(b.Sees([](const fabric::View& view) {
    return view.Find("a")->state == fabric::MemberState::kDraining;
  }));
  a.Leave();
  EXPECT_TRUE(b.SeesIds({"b"}));
}

// Without a word it stays until the lease has run out.
TEST(Membership, ALostWorkerGoesWithItsLease) {
  Router router(/*lease=*/absl::Seconds(1));
  Worker a({router.address()}, fabric::ExpertMember("a", "127.0.0.1:1"));
  Worker b({router.address()}, fabric::ExpertMember("b", "127.0.0.1:2"));
  ASSERT_TRUE(b.SeesIds({"a", "b"}));
  a.Leave();
  EXPECT_TRUE(b.SeesIds({"b"}));
}

TEST(Membership, ARestartedRouterLearnsFromTheWorkers) {
  auto router = std::make_unique<Router>();
  const int port = router->port();
  Worker a({router->address()}, fabric::ExpertMember("a", "127.0.0.1:1"));
  Worker b({router->address()}, fabric::ExpertMember("b", "127.0.0.1:2"));
  ASSERT_TRUE(a.SeesIds({"a", "b"}));
  router = nullptr;
  // Meanwhile they go on with what they know.
  EXPECT_TRUE(a.SeesIds({"a", "b"}));
  router = std::make_unique<Router>(absl::Seconds(30), port);
  a.member()->zone = "elsewhere";
  a.client()->Update(*a.member());
  EXPECT_TRUE(b.Sees([](const fabric::View& view) {
    return view.members.size() == 2 && view.Find("a")->zone == "elsewhere";
  }));
  EXPECT_EQ(router->registry()->members().size(), 2u);
}

TEST(Membership, WorkersJoinEveryRouter) {
  Router first;
  Router second;
  const std::vector<std::string> both = {
      first.address(), absl::StrCat("localhost:", second.port())};
  Worker a(both, fabric::ExpertMember("a", "127.0.0.1:1"));
  Worker b({second.address()}, fabric::ExpertMember("b", "127.0.0.1:2"));
  EXPECT_TRUE(a.SeesIds({"a", "b"}));
  Worker c({first.address()}, fabric::ExpertMember("c", "127.0.0.1:3"));
  EXPECT_TRUE(a.SeesIds({"a", "b", "c"}));
  EXPECT_TRUE(c.SeesIds({"a", "c"}));
}

TEST(Membership, HeatGoesFromAttentionWorkersToExpertWorkers) {
  Router router;
  Worker expert({router.address()}, fabric::ExpertMember("a", "127.0.0.1:1"));
  std::atomic<bool> taken{false};
  Worker attention({router.address()},
                   fabric::AttentionMember("b", "127.0.0.1:2"), [&taken] {
                     return taken.exchange(true)
                                ? std::vector<uint32_t>{}
                                : std::vector<uint32_t>{5000, 0, 70'000};
                   });
  EXPECT_TRUE(expert.Sees([](const fabric::View& view) {
    return view.heat.size() == 3 && view.heat[0] > 4000 && view.heat[1] == 0 &&
           view.heat[2] > 60'000;
  }));
}

TEST(Membership, AnAddressWithoutHostIsWhereTheWorkerComesFrom) {
  Router router;
  Worker a({router.address()}, fabric::ExpertMember("a", ":7001"));
  EXPECT_TRUE(a.Sees([](const fabric::View& view) {
    return view.members.size() == 1 &&
           view.members[0].address == "127.0.0.1:7001";
  }));
}

// What a stream ends with that sends these reports.
grpc::Status EndOf(const Router& router,
                   const std::vector<v1::MemberReport>& reports) {
  const auto stub = v1::Membership::NewStub(rpc::NewChannel(router.address()));
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kPatience));
  const auto stream = stub->Join(&context);
  for (const auto& report : reports) stream->Write(report);
  v1::ViewUpdate update;
  while (stream->Read(&update)) {
  }
  return stream->Finish();
}

TEST(Membership, RefusesBadStreamsWithReasons) {
  Router router;
  grpc::Status end = EndOf(router, {v1::MemberReport()});
  EXPECT_EQ(end.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(end.error_message(), HasSubstr("has no member"));

  v1::MemberReport good;
  *good.mutable_member() =
      fabric::MemberToProto(fabric::ExpertMember("a", "127.0.0.1:1"));
  v1::MemberReport other = good;
  other.mutable_member()->set_instance_id("x");
  end = EndOf(router, {good, other});
  EXPECT_EQ(end.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(end.error_message(), HasSubstr("one instance's"));

  v1::MemberReport nowhere = good;
  nowhere.mutable_member()->set_address("nowhere");
  EXPECT_THAT(EndOf(router, {nowhere}).error_message(),
              HasSubstr("not an address"));
  EXPECT_EQ(router.registry()->members().size(), 1u);
}

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + kPatience;
  Mutex mutex;
  CondVar never;
  MutexLock lock(&mutex);
  while (absl::Now() < deadline) {
    if (condition()) return true;
    never.WaitUntil(&mutex, absl::Now() + absl::Milliseconds(5));
  }
  return false;
}

// The pool's workers are those that are there, the static one among them.
TEST(AttentionMembers, FollowTheRegistry) {
  Router router;
  LeastLoaded policy;
  testing::ScriptedAttentionClient fixed("127.0.0.1:10");
  WorkerPool pool({&fixed}, &policy, {});
  const auto pool_has = [&pool](const std::vector<std::string>& names) {
    return Eventually([&] {
      std::vector<std::string> has;
      for (const auto& worker : pool.Describe()) has.push_back(worker.name);
      return has == names;
    });
  };
  std::atomic<int> made{0};
  AttentionMembers members(
      router.registry(), &pool,
      [&made](const std::string& address)
          -> absl::StatusOr<std::unique_ptr<AttentionClient>> {
        ++made;
        return std::make_unique<testing::ScriptedAttentionClient>(address);
      });
  router.Listen([&members] { members.Changed(); });
  MemberRegistry* const registry = router.registry();
  ASSERT_TRUE(
      registry->Report(fabric::AttentionMember("a", "127.0.0.1:11")).ok());
  ASSERT_TRUE(
      registry->Report(fabric::AttentionMember("b", "127.0.0.1:10")).ok());
  ASSERT_TRUE(registry->Report(fabric::ExpertMember("c", "127.0.0.1:12")).ok());
  EXPECT_TRUE(pool_has({"127.0.0.1:10", "127.0.0.1:11"}));
  EXPECT_TRUE(Eventually([&] { return fixed.num_asks() == 1; }));
  // Another instance at an address that has a client: that one asks at once.
  ASSERT_TRUE(
      registry->Report(fabric::AttentionMember("b2", "127.0.0.1:10")).ok());
  EXPECT_TRUE(Eventually([&] { return fixed.num_asks() == 2; }));
  EXPECT_EQ(made, 1);
  registry->Leave("b2");
  registry->Leave("a");
  registry->Leave("b");
  EXPECT_TRUE(pool_has({"127.0.0.1:10"}));
  ASSERT_TRUE(
      registry->Report(fabric::AttentionMember("d", "127.0.0.1:11")).ok());
  EXPECT_TRUE(pool_has({"127.0.0.1:10", "127.0.0.1:11"}));
  router.Listen(nullptr);
}

}  // namespace
}  // namespace switchyard::router
