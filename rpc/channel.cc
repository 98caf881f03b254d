#include "rpc/channel.h"

#include <stdlib.h>

#include "absl/synchronization/mutex.h"
#include "grpc/grpc.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/support/channel_arguments.h"
#include "rpc/address.h"
#include "rpc/settings.h"
#include "rpc/tls.h"

namespace switchyard::rpc {

std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxMessageBytes);
  arguments.SetCompressionAlgorithm(GRPC_COMPRESS_NONE);

  // Channels to one address would share a connection otherwise.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);

  // Each is spread by a fifth to both sides: 240 ms at most.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 200);
  // By its name a back-off, in fact how long one attempt may take at least:
  // 20 s by default, which is long for an address that swallows packets.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);

  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no limit

  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kMaxFrameBytes);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kStreamWindowBytes);
  arguments.SetInt(GRPC_ARG_TCP_READ_CHUNK_SIZE, kReadChunkBytes);
  arguments.SetString(GRPC_ARG_OPTIMIZATION_TARGET, "latency");

  // Retries are ours (they go to another worker). Addresses within a cluster
  // are no business of an http_proxy in the environment, nor have they service
  // configs in DNS.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  if (!TlsPeerName().empty() && !IsUnixSocket(address)) {
    arguments.SetSslTargetNameOverride(TlsPeerName());
  }
  return grpc::CreateCustomChannel(address, ChannelCredentialsFor(address),
                                   arguments);
}

void InitGrpcEnvironment() {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): before any thread starts
  setenv("GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS", "100",
         /*overwrite=*/0);
  // Debian builds Abseil with its search for lock cycles: a few percent of what
  // a message costs.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

void PollEachQueueAlone() {
  InitGrpcEnvironment();
  // NOLINTNEXTLINE(concurrency-mt-unsafe): before any thread starts
  setenv("GRPC_POLL_STRATEGY", "poll", /*overwrite=*/0);
}

}  // namespace switchyard::rpc
