// An expert worker that says whatever a test wants, right or wrong.

#ifndef SWITCHYARD_TESTS_ATTENTION_WORKER_CLIENT_SCRIPTED_EXPERT_SERVER_H_
#define SWITCHYARD_TESTS_ATTENTION_WORKER_CLIENT_SCRIPTED_EXPERT_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "grpcpp/support/sync_stream.h"
#include "proto/expert.grpc.pb.h"
#include "rpc/server.h"

namespace switchyard::attention_worker {

// Runs the script on a thread of gRPC for every stream; when it returns, the
// stream ends with its status. Listens on 127.0.0.1 until destroyed, which cuts
// the streams: a Read then returns false.
class ScriptedExpertServer {
 public:
  using Stream = grpc::ServerReaderWriter<v1::ExpertReply, v1::ExpertRequest>;
  using Script = std::function<grpc::Status(Stream* stream)>;

  explicit ScriptedExpertServer(Script script, int port = 0)
      : service_(std::move(script)) {
    grpc::Service* const services[] = {&service_};
    absl::StatusOr<std::unique_ptr<rpc::Server>> server;
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    do {  // a port that was in use a moment ago may need a little
      server = rpc::Server::Start("127.0.0.1", port, services);
    } while (!server.ok() && absl::Now() < deadline);
    SY_CHECK(server.ok());
    server_ = *std::move(server);
  }
  ~ScriptedExpertServer() { server_->Shutdown(absl::ZeroDuration()); }

  int port() const { return server_->port(); }
  std::string address() const { return absl::StrCat("127.0.0.1:", port()); }

 private:
  class Service final : public v1::Expert::Service {
   public:
    explicit Service(Script script) : script_(std::move(script)) {}
    grpc::Status Connect(grpc::ServerContext* context,
                         Stream* stream) override {
      return script_(stream);
    }

   private:
    const Script script_;
  };

  Service service_;
  std::unique_ptr<rpc::Server> server_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_TESTS_ATTENTION_WORKER_CLIENT_SCRIPTED_EXPERT_SERVER_H_
