// One stream to one router, kept up.
//
// Above: membership_client.cc.

#ifndef SWITCHYARD_FABRIC_CLIENT_ROUTER_LINK_H_
#define SWITCHYARD_FABRIC_CLIENT_ROUTER_LINK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "fabric/membership/member.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "proto/membership.grpc.pb.h"

namespace switchyard::fabric {

// Two threads: "member-link" connects and reads, "member-beat" reports.
// Thread-safe.
class RouterLink {
 public:
  struct Options {
    std::string address;
    absl::Duration min_backoff;
    absl::Duration max_backoff;
    // From the link's thread, in this order: connected, updates, lost.
    std::function<void()> on_connected;
    std::function<void(ViewUpdate update)> on_update;
    std::function<void()> on_lost;
  };

  RouterLink(Options options, Member member);
  // Says goodbye, and waits for the threads.
  ~RouterLink();

  void Update(const Member& member) ABSL_LOCKS_EXCLUDED(mutex_);
  // Rows to report, on top of those that are not reported yet.
  void AddHeat(const std::vector<uint32_t>& rows) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Stream = grpc::ClientReaderWriter<v1::MemberReport, v1::ViewUpdate>;

  void Run() ABSL_LOCKS_EXCLUDED(mutex_);
  // One stream, from its beginning to its end. True: the router spoke.
  bool Connect() ABSL_LOCKS_EXCLUDED(mutex_);
  void Beat(Stream* stream) ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Membership::Stub> stub_;

  Mutex mutex_;
  CondVar changed_;
  Member member_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint32_t> heat_ ABSL_GUARDED_BY(mutex_);
  absl::Duration heartbeat_ ABSL_GUARDED_BY(mutex_) = absl::Milliseconds(100);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // The stream of this moment; null: none.
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool stream_over_ ABSL_GUARDED_BY(mutex_) = true;

  std::thread thread_;  // last: uses everything above
};

}  // namespace switchyard::fabric

#endif  // SWITCHYARD_FABRIC_CLIENT_ROUTER_LINK_H_
