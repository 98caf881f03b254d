#include "fabric/client/router_link.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/thread.h"
#include "fabric/wire/membership_codec.h"
#include "rpc/channel.h"
#include "rpc/status_conversion.h"

namespace switchyard::fabric {
namespace {

// Looks for a connection for so long, then whether to stop.
constexpr absl::Duration kConnectTurn = absl::Milliseconds(200);
// How long a router may take to end the stream after goodbye.
constexpr absl::Duration kGoodbyeTime = absl::Milliseconds(300);

}  // namespace

RouterLink::RouterLink(Options options, Member member)
    : options_(std::move(options)),
      channel_(rpc::NewChannel(options_.address)),
      stub_(v1::Membership::NewStub(channel_)),
      member_(std::move(member)) {
  thread_ = StartThread("member-link", [this] { Run(); });
}

RouterLink::~RouterLink() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
    const absl::Time deadline = absl::Now() + kGoodbyeTime;
    while (!stream_over_ && absl::Now() < deadline) {
      changed_.WaitUntil(&mutex_, deadline);
    }
    if (context_ != nullptr) context_->TryCancel();
  }
  thread_.join();
}

void RouterLink::Update(const Member& member) {
  MutexLock lock(&mutex_);
  member_ = member;
  changed_.SignalAll();
}

void RouterLink::AddHeat(const std::vector<uint32_t>& rows) {
  MutexLock lock(&mutex_);
  if (heat_.size() < rows.size()) heat_.resize(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) heat_[i] += rows[i];
}

void RouterLink::Run() {
  absl::Duration backoff = options_.min_backoff;
  while (true) {
    const bool spoke = Connect();
    backoff = spoke ? options_.min_backoff
                    : std::min(2 * backoff, options_.max_backoff);
    const absl::Time next = absl::Now() + backoff;
    MutexLock lock(&mutex_);
    while (!stopping_ && absl::Now() < next) {
      changed_.WaitUntil(&mutex_, next);
    }
    if (stopping_) return;
  }
}

bool RouterLink::Connect() {
  // Waiting keeps gRPC looking at the connection.
  if (!channel_->WaitForConnected(
          absl::ToChronoTime(absl::Now() + kConnectTurn))) {
    return false;
  }
  grpc::ClientContext context;
  {
    MutexLock lock(&mutex_);
    if (stopping_) return false;
    context_ = &context;
    stream_over_ = false;
  }
  const std::unique_ptr<Stream> stream = stub_->Join(&context);
  std::thread beat = StartThread("member-beat", [&] { Beat(stream.get()); });
  bool spoke = false;
  absl::Status broken;
  v1::ViewUpdate message;
  while (stream->Read(&message)) {
    absl::StatusOr<ViewUpdate> update = ViewUpdateFromProto(message);
    if (!update.ok()) {
      broken = update.status();
      context.TryCancel();
      break;
    }
    if (!spoke) {
      LogInfo(absl::StrCat("joined the router at ", options_.address,
                           ", which knows ", update->members.size(),
                           " members"));
      options_.on_connected();
    }
    spoke = true;
    {
      MutexLock lock(&mutex_);
      heartbeat_ = update->heartbeat;
    }
    options_.on_update(*std::move(update));
  }
  {
    MutexLock lock(&mutex_);
    stream_over_ = true;
    changed_.SignalAll();
  }
  beat.join();
  const absl::Status why = rpc::FromGrpcStatus(stream->Finish());
  bool stopping = false;
  {
    MutexLock lock(&mutex_);
    context_ = nullptr;
    stopping = stopping_;
  }
  if (spoke) options_.on_lost();
  if (!stopping && (spoke || !absl::IsUnavailable(why))) {
    LogWarning(absl::StrCat("router at ", options_.address, ": ",
                            broken.ok() ? why.ToString() : broken.ToString()));
  }
  return spoke;
}

void RouterLink::Beat(Stream* stream) {
  uint64_t reported = 0;  // revision
  bool first = true;
  while (true) {
    v1::MemberReport report;
    absl::Duration wait;
    bool goodbye = false;
    {
      MutexLock lock(&mutex_);
      if (stream_over_) return;
      if (first || member_.revision != reported) {
        *report.mutable_member() = MemberToProto(member_);
        reported = member_.revision;
        first = false;
      }
      report.mutable_heat()->Add(heat_.begin(), heat_.end());
      heat_.clear();
      wait = heartbeat_;
      goodbye = stopping_;
    }
    if (!stream->Write(report)) return;
    if (goodbye) {
      stream->WritesDone();
      return;
    }
    const absl::Time next = absl::Now() + wait;
    MutexLock lock(&mutex_);
    while (!stream_over_ && !stopping_ && member_.revision == reported &&
           absl::Now() < next) {
      changed_.WaitUntil(&mutex_, next);
    }
  }
}

}  // namespace switchyard::fabric
