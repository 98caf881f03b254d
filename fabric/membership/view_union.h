// One view out of several routers', some of which may be gone or new.
//
// Above: fabric/client/membership_client.h.

#ifndef SWITCHYARD_FABRIC_MEMBERSHIP_VIEW_UNION_H_
#define SWITCHYARD_FABRIC_MEMBERSHIP_VIEW_UNION_H_

#include <map>
#include <string>
#include <vector>

#include "fabric/membership/member.h"

namespace switchyard::fabric {

// Whoever a router that is connected and settled knows, is there. What others
// said counts while there is no such router: the last words of those that are
// gone, and, beside what it knows already, what a router that has restarted
// knew before. Not thread-safe.
class ViewUnion {
 public:
  // `router` is the caller's name for a connection's other end: its address.
  void Connected(const std::string& router);
  void Apply(const std::string& router, ViewUpdate update);
  void Disconnected(const std::string& router);
  // It is not asked any more, and has no say.
  void Forget(const std::string& router);

  // Of two instances of one role at one address the later started is there.
  View Merge() const;

 private:
  struct Router {
    bool connected = false;
    bool settled = false;
    std::map<std::string, Member> members;  // by instance id
    // What it said before it restarted; until it has settled.
    std::map<std::string, Member> before;
    std::vector<uint32_t> heat;
  };

  std::map<std::string, Router> routers_;
};

}  // namespace switchyard::fabric

#endif  // SWITCHYARD_FABRIC_MEMBERSHIP_VIEW_UNION_H_
