#include "rpc/queue_poll.h"

#include <sched.h>

#include <algorithm>
#include <chrono>

#include "absl/time/clock.h"

namespace switchyard::rpc {

grpc::CompletionQueue::NextStatus NextEvent(grpc::CompletionQueue* queue,
                                            absl::Duration spin,
                                            absl::Time deadline, void** tag,
                                            bool* ok) {
  using NextStatus = grpc::CompletionQueue::NextStatus;
  // gRPC turns it into "has passed", whatever the clock says.
  const gpr_timespec past = gpr_inf_past(GPR_CLOCK_MONOTONIC);
  NextStatus status = queue->AsyncNext(tag, ok, past);
  if (status != NextStatus::TIMEOUT || deadline == absl::InfinitePast()) {
    return status;
  }
  const absl::Time start = absl::Now();
  if (deadline <= start) return status;
  if (spin > absl::ZeroDuration()) {
    const absl::Time stop = std::min(start + spin, deadline);
    do {
      sched_yield();
      status = queue->AsyncNext(tag, ok, past);
      if (status != NextStatus::TIMEOUT) return status;
    } while (absl::Now() < stop);
  }
  // A day stands for "never": an infinite absl::Time overflows chrono.
  return queue->AsyncNext(
      tag, ok, absl::ToChronoTime(std::min(deadline, start + absl::Hours(24))));
}

}  // namespace switchyard::rpc
