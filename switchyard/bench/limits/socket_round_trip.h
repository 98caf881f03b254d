// How long bytes take to a peer and back without any protocol: what a dispatch
// to expert workers can cost at least.

#ifndef SWITCHYARD_SWITCHYARD_BENCH_LIMITS_SOCKET_ROUND_TRIP_H_
#define SWITCHYARD_SWITCHYARD_BENCH_LIMITS_SOCKET_ROUND_TRIP_H_

#include <cstdint>

#include "absl/status/statusor.h"

namespace switchyard::bench {

enum class SocketKind { kTcp, kUnix };  // loopback; a socket of this host

struct SocketExchange {
  SocketKind kind = SocketKind::kTcp;
  // True: both ends ask again and again whether bytes have come. False: they
  // sleep in the kernel until then.
  bool spin = false;
  int64_t request_bytes = 1;  // >= 1, to each peer
  int64_t reply_bytes = 1;    // >= 1, from each peer
  int peers = 1;              // written to in turn, then read from in turn
};

struct RoundTrip {
  double median = 0;  // seconds, from the first write to the last byte read
  double p99 = 0;
};

// Exchanges for about `seconds`, at least ten times; each peer is a thread. A
// busy machine shows. INVALID_ARGUMENT: sizes. UNAVAILABLE: the system's reason
// why there is no such connection, or that it stood still for ten seconds.
absl::StatusOr<RoundTrip> MeasureRoundTrip(const SocketExchange& exchange,
                                           double seconds);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_SWITCHYARD_BENCH_LIMITS_SOCKET_ROUND_TRIP_H_
