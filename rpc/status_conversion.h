// grpc::Status <-> absl::Status: the same codes by number.

#ifndef SWITCHYARD_RPC_STATUS_CONVERSION_H_
#define SWITCHYARD_RPC_STATUS_CONVERSION_H_

#include "absl/status/status.h"
#include "grpcpp/support/status.h"

namespace switchyard::rpc {

grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace switchyard::rpc

#endif  // SWITCHYARD_RPC_STATUS_CONVERSION_H_
