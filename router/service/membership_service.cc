#include "router/service/membership_service.h"

#include <algorithm>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "fabric/wire/membership_codec.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "proto/membership.grpc.pb.h"
#include "rpc/address.h"
#include "rpc/status_conversion.h"

namespace switchyard::router {
namespace {

// "ipv4:10.0.0.7:4242" -> "10.0.0.7"; "ipv6:%5B::1%5D:4242" -> "[::1]"; empty
// for a socket's path.
std::string HostOfPeer(const std::string& peer) {
  if (absl::StartsWith(peer, "ipv4:")) {
    return peer.substr(5, peer.rfind(':') - 5);
  }
  if (absl::StartsWith(peer, "ipv6:")) {
    const std::string address = peer.substr(5, peer.rfind(':') - 5);
    const size_t begin = absl::StartsWith(address, "%5B") ? 3 : 1;
    const size_t end = absl::StartsWith(address, "%5B") ? 3 : 1;
    if (address.size() < begin + end) return "";
    return absl::StrCat(
        "[", address.substr(begin, address.size() - begin - end), "]");
  }
  return "";
}

class Session;

class MembershipServiceImpl final : public MembershipService,
                                    public v1::Membership::CallbackService {
 public:
  explicit MembershipServiceImpl(const MembershipServiceOptions& options)
      : options_(options) {
    thread_ = StartThread("sy-members", [this] { Run(); });
  }
  ~MembershipServiceImpl() override {
    {
      MutexLock lock(&mutex_);
      stopping_ = true;
      wake_.SignalAll();
    }
    thread_.join();
  }

  grpc::Service* grpc_service() override { return this; }

  void Changed() override ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    changed_ = true;
    wake_.SignalAll();
  }

  void Close() override ABSL_LOCKS_EXCLUDED(mutex_);

  grpc::ServerBidiReactor<v1::MemberReport, v1::ViewUpdate>* Join(
      grpc::CallbackServerContext* context) override
      ABSL_LOCKS_EXCLUDED(mutex_);

  MemberRegistry* registry() { return options_.registry; }
  void Remove(Session* session) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  const MembershipServiceOptions options_;
  Mutex mutex_;
  CondVar wake_;
  bool changed_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<Session*, std::shared_ptr<Session>> sessions_
      ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

// One worker's stream. The service's map and gRPC (until OnDone) keep it.
class Session final
    : public grpc::ServerBidiReactor<v1::MemberReport, v1::ViewUpdate> {
 public:
  Session(MembershipServiceImpl* service, std::string peer)
      : service_(service), peer_(std::move(peer)) {}

  void Begin() { StartRead(&report_); }

  // Sends what this worker has not heard, if it can take something.
  void Push(const std::vector<uint32_t>& heat) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (member_.instance_id.empty() || writing_ || finished_) return;
    const bool wants_heat =
        !heat.empty() && member_.role == fabric::MemberRole::kExpertWorker;
    if (service_->registry()->version() == sent_ && !wants_heat) return;
    fabric::ViewUpdate update = service_->registry()->Since(sent_);
    sent_ = update.version;
    if (wants_heat) update.heat = heat;
    update_ = fabric::ViewUpdateToProto(update);
    writing_ = true;
    StartWrite(&update_);
  }

  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    if (std::exchange(finished_, true)) return;
    Finish(rpc::ToGrpcStatus(status));
  }

  void OnReadDone(bool ok) override {
    if (!ok) {
      if (MemberDrains()) service_->registry()->Leave(instance_id());
      End(absl::OkStatus());
      return;
    }
    const absl::Status status = OnReport();
    if (!status.ok()) {
      LogWarning(absl::StrCat("a worker at ", peer_, ": ", status.ToString()));
      End(status);
      return;
    }
    MutexLock lock(&mutex_);
    if (finished_) return;
    report_.Clear();
    StartRead(&report_);
  }
  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      writing_ = false;
    }
    if (ok) {
      service_->Changed();  // more may have changed meanwhile
    } else {
      End(absl::CancelledError("the worker is gone"));
    }
  }
  void OnCancel() override { End(absl::CancelledError("the worker is gone")); }
  void OnDone() override { service_->Remove(this); }

 private:
  absl::Status OnReport() ABSL_LOCKS_EXCLUDED(mutex_);

  std::string instance_id() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return member_.instance_id;
  }
  bool MemberDrains() ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    return member_.state == fabric::MemberState::kDraining;
  }

  MembershipServiceImpl* const service_;
  const std::string peer_;
  v1::MemberReport report_;  // of the read in progress
  v1::ViewUpdate update_;    // of the write in progress

  Mutex mutex_;
  fabric::Member member_ ABSL_GUARDED_BY(mutex_);  // no id: none yet
  uint64_t sent_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

absl::Status Session::OnReport() {
  fabric::Member member;
  bool first = false;
  {
    MutexLock lock(&mutex_);
    member = member_;
    first = member_.instance_id.empty();
  }
  if (report_.has_member()) {
    absl::StatusOr<fabric::Member> decoded =
        fabric::MemberFromProto(report_.member());
    if (!decoded.ok()) return decoded.status();
    if (absl::StartsWith(decoded->address, ":")) {
      decoded->address = absl::StrCat(HostOfPeer(peer_), decoded->address);
    }
    if (absl::Status valid = rpc::CheckAddress(decoded->address); !valid.ok()) {
      return valid;
    }
    if (!first && (decoded->instance_id != member.instance_id ||
                   decoded->role != member.role)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "instance ", member.instance_id, " says that it is ",
          decoded->instance_id, " now; a stream is one instance's"));
    }
    member = *std::move(decoded);
    absl::Status status = service_->registry()->Report(member);
    if (!status.ok()) return status;
    MutexLock lock(&mutex_);
    member_ = member;
  } else if (first) {
    return absl::InvalidArgumentError("the first report has no member");
  } else if (!service_->registry()->Heartbeat(member.instance_id).ok()) {
    // Its lease ran out while the stream stood still: it joins anew.
    absl::Status status = service_->registry()->Report(member);
    if (!status.ok()) return status;
  }
  if (report_.heat_size() > 0) {
    service_->registry()->AddHeat(report_.heat());
  }
  if (first) service_->Changed();
  return absl::OkStatus();
}

grpc::ServerBidiReactor<v1::MemberReport, v1::ViewUpdate>*
MembershipServiceImpl::Join(grpc::CallbackServerContext* context) {
  auto session = std::make_shared<Session>(this, context->peer());
  bool closed = false;
  {
    MutexLock lock(&mutex_);
    sessions_.emplace(session.get(), session);
    closed = closed_;
  }
  if (closed) {
    session->End(absl::UnavailableError("this router is shutting down"));
  } else {
    session->Begin();
  }
  return session.get();
}

void MembershipServiceImpl::Remove(Session* session) {
  std::shared_ptr<Session> last;  // destroyed without the mutex
  MutexLock lock(&mutex_);
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return;
  last = std::move(found->second);
  sessions_.erase(found);
}

void MembershipServiceImpl::Close() {
  std::vector<std::shared_ptr<Session>> sessions;
  {
    MutexLock lock(&mutex_);
    closed_ = true;
    for (const auto& [key, session] : sessions_) sessions.push_back(session);
  }
  for (const auto& session : sessions) {
    session->End(absl::UnavailableError("this router is shutting down"));
  }
}

void MembershipServiceImpl::Run() {
  absl::Time next_update = absl::InfinitePast();
  absl::Time next_heat = absl::Now() + options_.heat_interval;
  while (true) {
    options_.registry->Expire();
    const absl::Time now = absl::Now();
    std::vector<std::shared_ptr<Session>> sessions;
    std::vector<uint32_t> heat;
    {
      MutexLock lock(&mutex_);
      if (stopping_) return;
      if ((changed_ || now >= next_heat) && now >= next_update) {
        changed_ = false;
        next_update = now + options_.min_update_interval;
        for (const auto& [key, session] : sessions_) {
          sessions.push_back(session);
        }
      }
    }
    if (!sessions.empty() && now >= next_heat) {
      next_heat = now + options_.heat_interval;
      heat = options_.registry->heat();
    }
    for (const auto& session : sessions) session->Push(heat);
    sessions.clear();
    MutexLock lock(&mutex_);
    if (stopping_) return;
    const absl::Time next = now + options_.tick;
    wake_.WaitUntil(
        &mutex_, changed_ ? std::max(now, std::min(next, next_update)) : next);
  }
}

}  // namespace

std::unique_ptr<MembershipService> MembershipService::Create(
    const MembershipServiceOptions& options) {
  return std::make_unique<MembershipServiceImpl>(options);
}

}  // namespace switchyard::router
