// A whole expert worker: listens, loads, serves, drains.
//
// Above: main.cc and the tests. Below: service/expert_service.h,
// experts/expert_engine.h.

#ifndef SWITCHYARD_EXPERT_WORKER_SERVER_H_
#define SWITCHYARD_EXPERT_WORKER_SERVER_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "expert_worker/server_options.h"

namespace switchyard::expert_worker {

// States move down this list only; kFailed and kDraining are final.
enum class ServerState {
  kLoading,   // listens; streams are refused with UNAVAILABLE, or, if it is
              // placed, get what there is already
  kServing,   // every weight is in memory, that is wanted for now
  kFailed,    // the checkpoint could not be loaded
  kDraining,  // no new work; what is in flight finishes
};

// Thread-safe.
class Server {
 public:
  // Listens, then loads in a thread of its own.
  // INVALID_ARGUMENT: options. UNAVAILABLE: a port is in use (names it).
  static absl::StatusOr<std::unique_ptr<Server>> Start(ServerOptions options);
  // Shuts down.
  virtual ~Server() = default;

  virtual int port() const = 0;
  virtual int metrics_port() const = 0;  // -1: none
  virtual ServerState state() const = 0;

  // Waits until loading has ended or `deadline`. OK when serving; the loading's
  // error; DEADLINE_EXCEEDED.
  virtual absl::Status WaitUntilLoaded(absl::Time deadline) = 0;

  // Tells clients to go elsewhere, answers what is in flight, and stops. Waits
  // for a load in progress. Idempotent.
  virtual void Shutdown() = 0;
};

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_SERVER_H_
