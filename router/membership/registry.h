// The workers that this router knows: who joined, and who is still heard of.
//
// Above: router/service/membership_service.h brings their reports;
// router/membership/attention_members.h feeds the pool of attention workers
// from it. Not here: gRPC, threads.

#ifndef SWITCHYARD_ROUTER_MEMBERSHIP_REGISTRY_H_
#define SWITCHYARD_ROUTER_MEMBERSHIP_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "fabric/membership/member.h"

namespace switchyard::router {

// Keeps members until their lease runs out. All of it is heard again from the
// workers after a restart. Thread-safe.
class MemberRegistry {
 public:
  struct Options {
    absl::Duration heartbeat = absl::Milliseconds(100);
    absl::Duration lease = absl::Milliseconds(500);
    // After that everybody who lives has had time to find this process.
    absl::Duration settle_time = absl::Seconds(2);
    // Rows of experts count half after so long.
    absl::Duration heat_half_life = absl::Minutes(1);
    int max_members = 1024;
    const Clock* clock = Clock::Real();  // not owned
    std::string router_id;
  };

  explicit MemberRegistry(Options options);

  // A member joins, or has changed, and is heard of. INVALID_ARGUMENT:
  // CheckMember(). FAILED_PRECONDITION: a later instance has its role and
  // address. RESOURCE_EXHAUSTED: max_members.
  absl::Status Report(const fabric::Member& member) ABSL_LOCKS_EXCLUDED(mutex_);
  // It is heard of. NOT_FOUND: it is not a member (any more): report it whole.
  absl::Status Heartbeat(const std::string& instance_id)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Gone at once, if it is a member.
  void Leave(const std::string& instance_id) ABSL_LOCKS_EXCLUDED(mutex_);
  // Rows since the last time, [L * E]. Counts of another shape start afresh.
  void AddHeat(absl::Span<const uint32_t> rows) ABSL_LOCKS_EXCLUDED(mutex_);

  // Lets those go whose lease has run out. Call it several times a lease.
  void Expire() ABSL_LOCKS_EXCLUDED(mutex_);

  // Grows with every change of the members or of settled().
  uint64_t version() const ABSL_LOCKS_EXCLUDED(mutex_);
  // What has changed since `version`, for whoever has that; everything if it is
  // 0 or forgotten long since. Without heat.
  fabric::ViewUpdate Since(uint64_t version) const ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<uint32_t> heat() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<fabric::Member> members() const ABSL_LOCKS_EXCLUDED(mutex_);

  // Called after every change, by whoever made it; must be quick, and may ask
  // this.
  void SetListener(std::function<void()> listener) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Entry {
    fabric::Member member;
    absl::Time heard;
    uint64_t version = 0;  // of its last change
  };

  void Remove(const std::string& instance_id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether something changed.
  bool ExpireLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DecayHeat() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Tell() ABSL_LOCKS_EXCLUDED(mutex_);

  const Options options_;
  const absl::Time started_;

  mutable Mutex mutex_;
  std::function<void()> listener_ ABSL_GUARDED_BY(mutex_);
  uint64_t version_ ABSL_GUARDED_BY(mutex_) = 1;
  bool settled_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  // (version, instance id) of removals, oldest first; bounded.
  std::vector<std::pair<uint64_t, std::string>> removed_
      ABSL_GUARDED_BY(mutex_);
  uint64_t forgotten_ ABSL_GUARDED_BY(mutex_) = 0;  // removals up to this
  std::vector<double> heat_ ABSL_GUARDED_BY(mutex_);
  absl::Time heat_time_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_MEMBERSHIP_REGISTRY_H_
