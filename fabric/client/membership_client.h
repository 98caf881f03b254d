// A worker's membership: joins every router, and knows who else is there.
//
// Above: the workers' servers. Below: rpc/, fabric/wire/membership_codec.h;
// fabric/membership/view_union.h makes one view of several routers'.

#ifndef SWITCHYARD_FABRIC_CLIENT_MEMBERSHIP_CLIENT_H_
#define SWITCHYARD_FABRIC_CLIENT_MEMBERSHIP_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "fabric/membership/member.h"

namespace switchyard::fabric {

// "a:1, b:2" -> the addresses. INVALID_ARGUMENT: one is none, or comes twice.
absl::StatusOr<std::vector<std::string>> ParseRouters(absl::string_view list);

struct MembershipClientOptions {
  // host:port or unix:/path; a name stands for all of its addresses, and is
  // looked up again and again. At least one.
  std::vector<std::string> routers;
  // Called whenever view() has changed, from a thread of this object; must be
  // quick. May be empty.
  std::function<void()> on_view;
  // Rows of each (layer, expert) since the last call, [L * E], or empty; for
  // the routers. Called every `heat_interval` from a thread of this object. May
  // be empty.
  std::function<std::vector<uint32_t>()> take_heat;

  absl::Duration heat_interval = absl::Seconds(2);
  absl::Duration resolve_interval = absl::Seconds(5);
  // Between attempts at a router: doubles from min to max.
  absl::Duration min_backoff = absl::Milliseconds(50);
  absl::Duration max_backoff = absl::Milliseconds(500);
};

// Life: Start; Update whenever something changed; destroyed. Keeps to the last
// view when no router answers. Thread-safe.
class MembershipClient {
 public:
  // Joins in the background. INVALID_ARGUMENT: no router, or no address.
  // `member.revision` and `started_unix_millis` are filled in here.
  static absl::StatusOr<std::unique_ptr<MembershipClient>> Start(
      MembershipClientOptions options, Member member);
  // Says goodbye where a router listens: with MemberState::kDraining the member
  // is gone at once.
  virtual ~MembershipClient() = default;

  // What is true of this member from now on; told at once. Its id, role and
  // address stay.
  virtual void Update(Member member) = 0;
  // The last view; never null. Empty and not settled before any router spoke.
  virtual std::shared_ptr<const View> view() const = 0;
  // Routers that it is connected to.
  virtual int num_connected() const = 0;
};

}  // namespace switchyard::fabric

#endif  // SWITCHYARD_FABRIC_CLIENT_MEMBERSHIP_CLIENT_H_
