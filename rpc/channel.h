// Channels with this project's settings: message size, keepalive, quick
// reconnects.

#ifndef SWITCHYARD_RPC_CHANNEL_H_
#define SWITCHYARD_RPC_CHANNEL_H_

#include <memory>
#include <string>

#include "grpcpp/channel.h"

namespace switchyard::rpc {

// Largest message either way, bytes.
inline constexpr int kMaxMessageBytes = 512 << 20;

// `address` is host:port, or unix:/path. Own connection (no sharing with other
// channels), no compression, reconnect back-off 100 to 200 ms, keepalive pings
// for silent partitions.
std::shared_ptr<grpc::Channel> NewChannel(const std::string& address);

// Call once in main, before anything of gRPC: shortens the back-up poll that
// otherwise delays reconnects by 5 s, unless the environment sets it.
void InitGrpcEnvironment();

// Instead of it, for the two ends of a dispatch. With gRPC's default, epoll,
// whichever thread of the process is in gRPC's poller takes the events of all
// and wakes the one that they are for; with poll each completion queue has
// sockets of its own, so a reply wakes the thread that waits for it and nobody
// else: 150 us less for a round trip in a process that also serves callbacks. A
// channel without calls is then only looked at every 100 ms.
void PollEachQueueAlone();

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_CHANNEL_H_
