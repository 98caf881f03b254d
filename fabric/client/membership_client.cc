#include "fabric/client/membership_client.h"

#include <map>
#include <set>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "fabric/client/router_link.h"
#include "fabric/membership/view_union.h"
#include "rpc/address.h"
#include "rpc/resolver.h"

namespace switchyard::fabric {
namespace {

class MembershipClientImpl final : public MembershipClient {
 public:
  MembershipClientImpl(MembershipClientOptions options, Member member)
      : options_(std::move(options)),
        member_(std::move(member)),
        view_(std::make_shared<View>()) {
    member_.started_unix_millis = absl::ToUnixMillis(absl::Now());
    member_.revision = 1;
    thread_ = StartThread("members", [this] { Run(); });
  }

  ~MembershipClientImpl() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      wake_.SignalAll();
    }
    thread_.join();
    // All at once: each waits for its router's goodbye.
    std::vector<std::thread> goodbyes;
    for (auto& [address, link] : links_) {
      goodbyes.push_back(
          StartThread("member-bye", [leaving = &link] { leaving->reset(); }));
    }
    for (std::thread& goodbye : goodbyes) goodbye.join();
  }

  void Update(Member member) override ABSL_LOCKS_EXCLUDED(links_mutex_) {
    MutexLock lock(&links_mutex_);
    member.started_unix_millis = member_.started_unix_millis;
    member.revision = member_.revision;
    if (member == member_) return;
    ++member.revision;
    member_ = std::move(member);
    for (const auto& [address, link] : links_) link->Update(member_);
  }

  std::shared_ptr<const View> view() const override
      ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return view_;
  }

  int num_connected() const override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return num_connected_;
  }

 private:
  // Looks names up, keeps a link to every address, and takes heat to them.
  void Run() ABSL_LOCKS_EXCLUDED(mutex_, links_mutex_);
  void Resolve() ABSL_LOCKS_EXCLUDED(mutex_, links_mutex_);
  void ReportHeat() ABSL_LOCKS_EXCLUDED(links_mutex_);
  std::unique_ptr<RouterLink> NewLink(const std::string& address)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(links_mutex_);
  // Changes the union and makes a view of it.
  template <typename Change>
  void ChangeView(int connected, Change change) ABSL_LOCKS_EXCLUDED(mutex_) {
    {
      MutexLock lock(&mutex_);
      change(&union_);
      num_connected_ += connected;
      view_ = std::make_shared<const View>(union_.Merge());
    }
    if (options_.on_view) options_.on_view();
  }

  const MembershipClientOptions options_;

  // Links call ChangeView, so mutex_ is never held while one is made or ended.
  Mutex links_mutex_;
  Member member_ ABSL_GUARDED_BY(links_mutex_);
  // Changed by the one thread only, which may read it without the mutex.
  std::map<std::string, std::unique_ptr<RouterLink>> links_;

  mutable Mutex mutex_;
  CondVar wake_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  ViewUnion union_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const View> view_ ABSL_GUARDED_BY(mutex_);
  int num_connected_ ABSL_GUARDED_BY(mutex_) = 0;

  std::map<std::string, std::string> complaints_;  // of the thread
  std::thread thread_;                             // last
};

std::unique_ptr<RouterLink> MembershipClientImpl::NewLink(
    const std::string& address) {
  RouterLink::Options link;
  link.address = address;
  link.min_backoff = options_.min_backoff;
  link.max_backoff = options_.max_backoff;
  link.on_connected = [this, address] {
    ChangeView(1, [&](ViewUnion* views) { views->Connected(address); });
  };
  link.on_update = [this, address](ViewUpdate update) {
    ChangeView(
        0, [&](ViewUnion* views) { views->Apply(address, std::move(update)); });
  };
  link.on_lost = [this, address] {
    ChangeView(-1, [&](ViewUnion* views) { views->Disconnected(address); });
  };
  return std::make_unique<RouterLink>(std::move(link), member_);
}

void MembershipClientImpl::Resolve() {
  std::set<std::string> addresses;
  bool all = true;
  for (const std::string& router : options_.routers) {
    const auto found = rpc::ResolveAll(router);
    std::string complaint = found.ok() ? "" : found.status().ToString();
    if (!complaint.empty() && complaints_[router] != complaint) {
      LogWarning(complaint);
    }
    complaints_[router] = std::move(complaint);
    if (found.ok()) {
      addresses.insert(found->begin(), found->end());
    } else {
      all = false;
    }
  }
  std::vector<std::pair<std::string, std::unique_ptr<RouterLink>>> gone;
  {
    MutexLock lock(&links_mutex_);
    for (const std::string& address : addresses) {
      if (!links_.contains(address)) links_[address] = NewLink(address);
    }
    // Nobody is dropped because a name server is out.
    for (auto it = links_.begin(); all && it != links_.end();) {
      if (addresses.contains(it->first)) {
        ++it;
        continue;
      }
      gone.emplace_back(it->first, std::move(it->second));
      it = links_.erase(it);
    }
  }
  for (auto& entry : gone) {
    const std::string& address = entry.first;
    entry.second.reset();
    ChangeView(0, [&](ViewUnion* views) { views->Forget(address); });
  }
}

void MembershipClientImpl::ReportHeat() {
  const std::vector<uint32_t> heat = options_.take_heat();
  if (heat.empty()) return;
  MutexLock lock(&links_mutex_);
  for (const auto& [address, link] : links_) link->AddHeat(heat);
}

void MembershipClientImpl::Run() {
  absl::Time next_resolve = absl::InfinitePast();
  absl::Time next_heat = absl::Now() + options_.heat_interval;
  while (true) {
    absl::Time now = absl::Now();
    if (now >= next_resolve) {
      Resolve();
      now = absl::Now();
      next_resolve = now + options_.resolve_interval;
    }
    if (now >= next_heat) {
      if (options_.take_heat) ReportHeat();
      next_heat = now + options_.heat_interval;
    }
    const absl::Time next = std::min(next_resolve, next_heat);
    MutexLock lock(&mutex_);
    while (!stopping_ && absl::Now() < next) wake_.WaitUntil(&mutex_, next);
    if (stopping_) return;
  }
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseRouters(absl::string_view list) {
  std::vector<std::string> routers;
  for (const absl::string_view part :
       absl::StrSplit(list, ',', absl::SkipWhitespace())) {
    std::string address(absl::StripAsciiWhitespace(part));
    if (const absl::Status valid = rpc::CheckAddress(address); !valid.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("routers \"", list, "\": ", valid.message()));
    }
    for (const std::string& earlier : routers) {
      if (earlier == address) {
        return absl::InvalidArgumentError(
            absl::StrCat("routers \"", list, "\" names ", address, " twice"));
      }
    }
    routers.push_back(std::move(address));
  }
  return routers;
}

absl::StatusOr<std::unique_ptr<MembershipClient>> MembershipClient::Start(
    MembershipClientOptions options, Member member) {
  if (options.routers.empty()) {
    return absl::InvalidArgumentError("there is no router to join");
  }
  for (const std::string& router : options.routers) {
    SY_RETURN_IF_ERROR(rpc::CheckAddress(router));
  }
  return std::make_unique<MembershipClientImpl>(std::move(options),
                                                std::move(member));
}

}  // namespace switchyard::fabric
