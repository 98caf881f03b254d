// One gRPC call as a program, for tests that are written in Python:
//
//   grpc_call HOST:PORT /package.Service/Method [REQUEST]
//
// REQUEST is one serialized message in hexadecimal, nothing by default. Each
// reply is a line, in hexadecimal too; the last line is "status CODE MESSAGE".
// Waits for the server to come up, and reads until the call ends: ten minutes
// at most.

#include <cstdio>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/time/time.h"
#include "rpc/channel.h"
#include "tests/rpc/raw_stream.h"

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    std::fprintf(stderr, "usage: grpc_call HOST:PORT METHOD [REQUEST]\n");
    return 2;
  }
  switchyard::rpc::InitGrpcEnvironment();
  switchyard::rpc::RawStream call(switchyard::rpc::NewChannel(argv[1]), argv[2],
                                  absl::Minutes(10));
  if (call.Write(absl::HexStringToBytes(argc == 4 ? argv[3] : ""))) {
    while (const std::optional<std::string> reply = call.Read()) {
      std::printf("%s\n", absl::BytesToHexString(*reply).c_str());
      std::fflush(stdout);
    }
  }
  const absl::Status status = call.Finish();
  std::printf("status %s %s\n", absl::StatusCodeToString(status.code()).c_str(),
              std::string(status.message()).c_str());
  return 0;
}
