#include "attention_worker/client/member_clients.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "gtest/gtest.h"
#include "tests/fabric/fabric_members.h"
#include "tests/testing/fake_expert_client.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeExpertClient;

class MemberClientsTest : public ::testing::Test {
 protected:
  MemberClientsTest() {
    SetMembers({});
    MemberClients::Options options;
    options.model_fingerprint = std::string("f00d");
    options.weight_format = std::string("q8");
    options.view = [this] {
      MutexLock lock(&mutex_);
      return view_;
    };
    options.connect = [this](const std::string& address)
        -> absl::StatusOr<std::unique_ptr<ExpertClient>> {
      auto client =
          std::make_unique<FakeExpertClient>(address, model::ExpertSet(3, 5));
      MutexLock lock(&mutex_);
      made_[address] = client.get();
      ++num_made_;
      return client;
    };
    options.set_clients =
        [this](std::vector<std::shared_ptr<ExpertClient>> clients) {
          MutexLock lock(&mutex_);
          clients_ = std::move(clients);
          changed_.SignalAll();
        };
    members_ = std::make_unique<MemberClients>(std::move(options));
  }

  void SetMembers(std::vector<fabric::Member> members) {
    auto view = std::make_shared<fabric::View>();
    view->settled = true;
    view->members = std::move(members);
    {
      MutexLock lock(&mutex_);
      view_ = std::move(view);
    }
    if (members_ != nullptr) members_->Wake();
  }

  // Waits until these are the clients.
  bool Has(const std::vector<std::string>& addresses) {
    const absl::Time deadline = absl::Now() + absl::Seconds(60);
    MutexLock lock(&mutex_);
    while (true) {
      std::vector<std::string> has;
      for (const auto& client : clients_) has.push_back(client->name());
      if (has == addresses) return true;
      if (absl::Now() >= deadline) return false;
      changed_.WaitUntil(&mutex_, deadline);
    }
  }

  Mutex mutex_;
  CondVar changed_;
  std::shared_ptr<const fabric::View> view_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, FakeExpertClient*> made_ ABSL_GUARDED_BY(mutex_);
  int num_made_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::shared_ptr<ExpertClient>> clients_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<MemberClients> members_;  // last: stops first
};

TEST_F(MemberClientsTest, FollowTheView) {
  const fabric::Member a = fabric::ExpertMember("a", "1.1.1.1:1");
  const fabric::Member b = fabric::ExpertMember("b", "1.1.1.1:2");
  fabric::Member other = fabric::ExpertMember("c", "1.1.1.1:3");
  other.model_fingerprint = "another";
  fabric::Member format = fabric::ExpertMember("d", "1.1.1.1:4");
  format.weight_format = std::string("q4");
  SetMembers({a, other, format, fabric::AttentionMember("e", "1.1.1.1:5")});
  EXPECT_TRUE(Has({"1.1.1.1:1"}));
  SetMembers({a, b});
  EXPECT_TRUE(Has({"1.1.1.1:1", "1.1.1.1:2"}));
  // Another process at an address is its client's business.
  fabric::Member successor = fabric::ExpertMember("f", "1.1.1.1:1");
  SetMembers({b, successor, fabric::ExpertMember("g", "1.1.1.1:0")});
  EXPECT_TRUE(Has({"1.1.1.1:0", "1.1.1.1:1", "1.1.1.1:2"}));
  MutexLock lock(&mutex_);
  EXPECT_EQ(num_made_, 3);
}

// Routers may err; a worker that answers is there.
TEST_F(MemberClientsTest, AWorkerThatIsConnectedStays) {
  SetMembers({fabric::ExpertMember("a", "1.1.1.1:1"),
              fabric::ExpertMember("b", "1.1.1.1:2")});
  ASSERT_TRUE(Has({"1.1.1.1:1", "1.1.1.1:2"}));
  {
    MutexLock lock(&mutex_);
    made_["1.1.1.1:2"]->Disconnect(absl::UnavailableError("gone"));
  }
  SetMembers({});
  EXPECT_TRUE(Has({"1.1.1.1:1"}));
}

}  // namespace
}  // namespace switchyard::attention_worker
