// A server and channels to it, over real sockets.

#include "rpc/server.h"

#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "gmock/gmock.h"
#include "grpcpp/client_context.h"
#include "grpcpp/server_context.h"
#include "gtest/gtest.h"
#include "proto/generation.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/health_service.h"
#include "rpc/status_conversion.h"
#include "tests/rpc/raw_stream.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::rpc {
namespace {

using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Optional;
using ::testing::SizeIs;

// As main does, before anything of gRPC.
const bool environment_is_set = (InitGrpcEnvironment(), true);

constexpr absl::Duration kLong = absl::Minutes(1);

// grpc.health.v1.HealthCheckResponse: field 1, a varint.
const char kServing[] = "\x08\x01";
const char kNotServing[] = "\x08\x02";

// grpc.health.v1.HealthCheckRequest: field 1, the service's name.
std::string HealthRequest(const std::string& service) {
  if (service.empty()) return "";
  return absl::StrCat("\x0a", std::string(1, static_cast<char>(service.size())),
                      service);
}

// Answers with the caller's address; after Hold only when told to, or when the
// call is cancelled.
class FakeService final : public v1::Generation::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetWorkerInfo(
      grpc::CallbackServerContext* context,
      const v1::GetWorkerInfoRequest* /*request*/,
      v1::WorkerInfo* response) override {
    response->set_instance_id(context->peer());
    response->set_version(std::string(reply_bytes, 'x'));
    auto* const call = new Call(this);
    MutexLock lock(&mutex_);
    if (hold_) {
      held_.insert(call);
    } else {
      call->Finish(grpc::Status::OK);
    }
    changed_.SignalAll();
    return call;
  }

  void Hold() {
    MutexLock lock(&mutex_);
    hold_ = true;
  }
  bool WaitUntilHeld() {
    MutexLock lock(&mutex_);
    const absl::Time deadline = absl::Now() + kLong;
    while (held_.empty() && changed_.WaitUntil(&mutex_, deadline)) {
    }
    return !held_.empty();
  }
  void Release() {
    MutexLock lock(&mutex_);
    for (Call* const call : held_) call->Finish(grpc::Status::OK);
    held_.clear();
  }

  size_t reply_bytes = 0;

 private:
  class Call final : public grpc::ServerUnaryReactor {
   public:
    explicit Call(FakeService* service) : service_(service) {}
    void OnCancel() override { service_->Cancelled(this); }
    void OnDone() override { delete this; }

   private:
    FakeService* const service_;
  };

  void Cancelled(Call* call) {
    MutexLock lock(&mutex_);
    if (held_.erase(call) == 0) return;  // finished already
    call->Finish(grpc::Status(grpc::StatusCode::CANCELLED, "gone"));
  }

  Mutex mutex_;
  CondVar changed_;
  bool hold_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<Call*> held_ ABSL_GUARDED_BY(mutex_);
};

std::unique_ptr<Server> StartOrDie(grpc::Service* service, int port = 0,
                                   int num_queues = 0) {
  auto server = Server::Start("127.0.0.1", port, {service}, num_queues);
  EXPECT_THAT(server, IsOk());
  return server.ok() ? *std::move(server) : nullptr;
}

std::string AddressOf(const Server& server) {
  return absl::StrCat("127.0.0.1:", server.port());
}

absl::StatusOr<v1::WorkerInfo> CallOnce(
    const std::shared_ptr<grpc::Channel>& channel,
    absl::Duration timeout = kLong, bool wait_for_ready = true) {
  grpc::ClientContext context;
  context.set_wait_for_ready(wait_for_ready);
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  v1::WorkerInfo info;
  const grpc::Status status = v1::Generation::NewStub(channel)->GetWorkerInfo(
      &context, v1::GetWorkerInfoRequest(), &info);
  if (!status.ok()) return FromGrpcStatus(status);
  return info;
}

TEST(ServerTest, ServesOnAFreePort) {
  FakeService service;
  const auto server = StartOrDie(&service);
  ASSERT_NE(server, nullptr);
  EXPECT_GT(server->port(), 0);
  EXPECT_THAT(CallOnce(NewChannel(AddressOf(*server))), IsOk());
}

TEST(ServerTest, ServesOnAUnixSocket) {
  TempDir dir;
  FakeService service;
  const std::string address = "unix:" + dir.File("s");
  const auto server = Server::Start(address, 0, {&service});
  ASSERT_THAT(server, IsOk());
  EXPECT_THAT(CallOnce(NewChannel(address)), IsOk());
}

TEST(ServerTest, PortInUseIsNamed) {
  FakeService first_service;
  const auto first = StartOrDie(&first_service);
  ASSERT_NE(first, nullptr);
  FakeService second_service;
  EXPECT_THAT(
      Server::Start("127.0.0.1", first->port(), {&second_service}, 1),
      StatusIs(absl::StatusCode::kUnavailable,
               AllOf(HasSubstr(AddressOf(*first)), HasSubstr("in use"))));
}

TEST(ServerTest, AddressesThatAreNotOurs) {
  FakeService service;
  // 203.0.113.0/24 is for documentation: nobody has it.
  EXPECT_THAT(
      Server::Start("203.0.113.1", 0, {&service}),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr("203.0.113.1:0")));
}

TEST(ServerTest, LargeMessages) {
  FakeService service;
  service.reply_bytes = 8 << 20;  // gRPC's own limit is 4 MiB
  const auto server = StartOrDie(&service);
  ASSERT_NE(server, nullptr);
  const auto info = CallOnce(NewChannel(AddressOf(*server)));
  ASSERT_THAT(info, IsOk());
  EXPECT_THAT(info->version(), SizeIs(service.reply_bytes));
}

TEST(ServerTest, HealthFollowsSetServing) {
  FakeService service;
  const auto server = StartOrDie(&service);
  ASSERT_NE(server, nullptr);
  const auto channel = NewChannel(AddressOf(*server));
  for (const char* name : {"", "switchyard.v1.Generation"}) {
    RawStream watch(channel, "/grpc.health.v1.Health/Watch");
    ASSERT_TRUE(watch.Write(HealthRequest(name)));
    EXPECT_THAT(watch.Read(), Optional(std::string(kNotServing))) << name;
    server->SetServing(true);
    EXPECT_THAT(watch.Read(), Optional(std::string(kServing))) << name;
    server->SetServing(true);  // no news
    server->SetServing(false);
    EXPECT_THAT(watch.Read(), Optional(std::string(kNotServing))) << name;
  }
  RawStream check(channel, "/grpc.health.v1.Health/Check");
  ASSERT_TRUE(check.Write(HealthRequest("no.such.Service")));
  EXPECT_EQ(check.Read(), std::nullopt);
  EXPECT_THAT(check.Finish(), StatusIs(absl::StatusCode::kNotFound));
}

TEST(ServerTest, HealthOfAnUnknownServiceIsWatched) {
  FakeService service;
  const auto server = StartOrDie(&service);
  ASSERT_NE(server, nullptr);
  RawStream watch(NewChannel(AddressOf(*server)),
                  "/grpc.health.v1.Health/Watch");
  ASSERT_TRUE(watch.Write(HealthRequest("no.such.Service")));
  EXPECT_THAT(watch.Read(), Optional(std::string("\x08\x03")));
}

TEST(ServerTest, WatchersAreBoundedAndLeave) {
  FakeService service;
  const auto server = StartOrDie(&service);
  ASSERT_NE(server, nullptr);
  const auto channel = NewChannel(AddressOf(*server));
  const auto watch = [&channel] {
    auto stream =
        std::make_unique<RawStream>(channel, "/grpc.health.v1.Health/Watch");
    EXPECT_TRUE(stream->Write(HealthRequest("")));
    return stream;
  };
  std::vector<std::unique_ptr<RawStream>> watchers;
  for (int i = 0; i < HealthService::kMaxWatchers; ++i) {
    watchers.push_back(watch());
    ASSERT_THAT(watchers.back()->Read(), Optional(std::string(kNotServing)));
  }
  const auto refused = watch();
  EXPECT_EQ(refused->Read(), std::nullopt);
  EXPECT_THAT(refused->Finish(),
              StatusIs(absl::StatusCode::kResourceExhausted));
  // The server learns of a client that has left within its next look.
  watchers.clear();
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  bool accepted = false;
  while (!accepted && absl::Now() < deadline) {
    accepted = watch()->Read().has_value();
  }
  EXPECT_TRUE(accepted);
}

// Threads that gRPC keeps for callbacks: they would take events from under the
// thread that waits for them.
int CallbackThreads() {
  int threads = 0;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "comm");
    std::string name;
    std::getline(file, name);
    threads += name == "nexting_thread" ? 1 : 0;
  }
  return threads;
}

TEST(ServerTest, AsynchronousServicesAreAloneInThePoller) {
  const int before = CallbackThreads();
  v1::Generation::AsyncService service;
  const auto server = StartOrDie(&service, 0, /*num_queues=*/1);
  ASSERT_NE(server, nullptr);
  EXPECT_EQ(CallbackThreads(), before);
  server->Shutdown(absl::ZeroDuration());
  server->completion_queue(0)->Shutdown();
  void* tag = nullptr;
  bool ok = false;
  while (server->completion_queue(0)->Next(&tag, &ok)) {
  }
}

TEST(ServerTest, ReflectionListsTheServices) {
  FakeService service;
  const auto server = StartOrDie(&service);
  ASSERT_NE(server, nullptr);
  RawStream reflection(
      NewChannel(AddressOf(*server)),
      "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo");
  // ServerReflectionRequest: field 7, list_services, an ignored string.
  ASSERT_TRUE(reflection.Write(std::string("\x3a\x01*", 3)));
  EXPECT_THAT(reflection.Read(),
              Optional(AllOf(HasSubstr("switchyard.v1.Generation"),
                             HasSubstr("grpc.health.v1.Health"))));
}

TEST(ServerTest, AsynchronousServicesHaveQueues) {
  v1::Generation::AsyncService service;
  const auto server = StartOrDie(&service, 0, /*num_queues=*/2);
  ASSERT_NE(server, nullptr);
  ASSERT_NE(server->completion_queue(0), server->completion_queue(1));

  grpc::ServerContext context;
  v1::GetWorkerInfoRequest request;
  grpc::ServerAsyncResponseWriter<v1::WorkerInfo> writer(&context);
  service.RequestGetWorkerInfo(&context, &request, &writer,
                               server->completion_queue(1),
                               server->completion_queue(1), &context);
  const auto drain = [&](int index) {
    void* tag = nullptr;
    bool ok = false;
    while (server->completion_queue(index)->Next(&tag, &ok)) {
      if (tag == &context && ok) {
        writer.Finish(v1::WorkerInfo(), grpc::Status::OK, &writer);
      }
    }
  };
  std::thread first = StartThread("queue-0", [&] { drain(0); });
  std::thread second = StartThread("queue-1", [&] { drain(1); });
  EXPECT_THAT(CallOnce(NewChannel(AddressOf(*server))), IsOk());
  server->Shutdown(kLong);
  // The queues are still open, and end when their owner says so.
  server->completion_queue(0)->Shutdown();
  server->completion_queue(1)->Shutdown();
  first.join();
  second.join();
}

TEST(ServerTest, ShutdownLetsCallsFinish) {
  FakeService service;
  service.Hold();
  const auto server = StartOrDie(&service);
  ASSERT_NE(server, nullptr);
  const auto channel = NewChannel(AddressOf(*server));
  absl::StatusOr<v1::WorkerInfo> reply;
  std::thread caller =
      StartThread("caller", [&] { reply = CallOnce(channel); });
  ASSERT_TRUE(service.WaitUntilHeld());

  std::thread stopper = StartThread(
      "stopper", [&] { server->Shutdown(absl::InfiniteDuration()); });
  // The socket is closed for others while the call goes on. A call that comes
  // before is held too, until its own short deadline.
  while (CallOnce(NewChannel(AddressOf(*server)), absl::Milliseconds(100),
                  /*wait_for_ready=*/false)
             .status()
             .code() != absl::StatusCode::kUnavailable) {
  }
  service.Release();
  stopper.join();
  caller.join();
  EXPECT_THAT(reply, IsOk());
  server->Shutdown(kLong);  // idempotent
}

TEST(ServerTest, ShutdownCancelsWhatIsLeftAfterTheGrace) {
  FakeService service;
  service.Hold();
  const auto server = StartOrDie(&service);
  ASSERT_NE(server, nullptr);
  const auto channel = NewChannel(AddressOf(*server));
  absl::StatusOr<v1::WorkerInfo> reply;
  std::thread caller =
      StartThread("caller", [&] { reply = CallOnce(channel); });
  ASSERT_TRUE(service.WaitUntilHeld());
  server->Shutdown(absl::Milliseconds(20));
  caller.join();
  EXPECT_THAT(reply, AnyOf(StatusIs(absl::StatusCode::kCancelled),
                           StatusIs(absl::StatusCode::kUnavailable)));
}

TEST(ServerTest, ShutdownTellsWatchersFirst) {
  FakeService service;
  const auto server = StartOrDie(&service);
  ASSERT_NE(server, nullptr);
  server->SetServing(true);
  RawStream watch(NewChannel(AddressOf(*server)),
                  "/grpc.health.v1.Health/Watch");
  ASSERT_TRUE(watch.Write(""));
  EXPECT_THAT(watch.Read(), Optional(std::string(kServing)));
  std::thread stopper = StartThread(
      "stopper", [&] { server->Shutdown(absl::Milliseconds(200)); });
  EXPECT_THAT(watch.Read(), Optional(std::string(kNotServing)));
  stopper.join();
  EXPECT_EQ(watch.Read(), std::nullopt);
}

TEST(ChannelTest, EachHasItsOwnConnection) {
  FakeService service;
  const auto server = StartOrDie(&service);
  ASSERT_NE(server, nullptr);
  std::set<std::string> peers;
  const auto first = NewChannel(AddressOf(*server));
  const auto second = NewChannel(AddressOf(*server));
  for (const auto& channel : {first, second, first}) {
    const auto info = CallOnce(channel);
    ASSERT_THAT(info, IsOk());
    peers.insert(info->instance_id());
  }
  EXPECT_THAT(peers, SizeIs(2));
}

TEST(ChannelTest, ReconnectsWithinTwoSeconds) {
  FakeService service;
  auto server = StartOrDie(&service);
  ASSERT_NE(server, nullptr);
  const int port = server->port();
  const auto channel = NewChannel(AddressOf(*server));
  ASSERT_THAT(CallOnce(channel), IsOk());
  server->Shutdown(absl::ZeroDuration());
  server.reset();
  // Long enough for some attempts to fail and the back-off to grow.
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(CallOnce(channel, absl::Milliseconds(200)),
                StatusIs(absl::StatusCode::kDeadlineExceeded));
  }
  server = StartOrDie(&service, port);
  ASSERT_NE(server, nullptr);
  EXPECT_THAT(CallOnce(channel, absl::Seconds(2)), IsOk());
}

TEST(ChannelTest, EnvironmentIsNotOverwritten) {
  const char kVariable[] = "GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS";
  ASSERT_STREQ(getenv(kVariable), "100");
  setenv(kVariable, "77", 1);
  InitGrpcEnvironment();
  EXPECT_STREQ(getenv(kVariable), "77");
  setenv(kVariable, "100", 1);
}

}  // namespace
}  // namespace switchyard::rpc
