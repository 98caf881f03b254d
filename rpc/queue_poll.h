// Waiting for a completion queue's next event: looking again and again for a
// while, then sleeping.
//
// To be woken from sleep costs 50 to 70 us on a machine whose idle CPUs halt,
// more than a small frame's whole way there and back. To look costs a CPU.

#ifndef SWITCHYARD_RPC_QUEUE_POLL_H_
#define SWITCHYARD_RPC_QUEUE_POLL_H_

#include "absl/time/time.h"
#include "grpcpp/completion_queue.h"

namespace switchyard::rpc {

// Longer than any step takes between two frames.
inline constexpr absl::Duration kMaxSpin = absl::Milliseconds(100);

// As CompletionQueue::AsyncNext. For the first `spin` of the wait the thread
// looks without sleeping, and yields its CPU to any other that wants it
// between two looks. `deadline` in the past: one look.
grpc::CompletionQueue::NextStatus NextEvent(grpc::CompletionQueue* queue,
                                            absl::Duration spin,
                                            absl::Time deadline, void** tag,
                                            bool* ok);

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_QUEUE_POLL_H_
