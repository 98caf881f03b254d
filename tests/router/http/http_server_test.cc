#include "router/http/http_server.h"

#include <sys/socket.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/matchers.h"
#include "tests/testing/raw_http_connection.h"

namespace switchyard::router {
namespace {

using switchyard::testing::HttpGet;
using switchyard::testing::RawHttpConnection;
using switchyard::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

// Something that happens once, on another thread.
class Event {
 public:
  void Set() {
    MutexLock lock(&mutex_);
    set_ = true;
    changed_.SignalAll();
  }
  bool Wait() {
    const absl::Time deadline = Soon();
    MutexLock lock(&mutex_);
    while (!set_) {
      if (!changed_.WaitUntil(&mutex_, deadline)) return set_;
    }
    return true;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  bool set_ ABSL_GUARDED_BY(mutex_) = false;
};

// /echo answers with method, path, query and body; requests to any other path
// wait for the test.
class HttpServerTest : public ::testing::Test {
 protected:
  struct Exchange {
    HttpRequest request;
    std::shared_ptr<ResponseWriter> writer;
  };

  void Start(HttpServer::Options options = {}) {
    options.error_body = [](int status, absl::string_view message) {
      return absl::StrCat("error ", status, ": ", message);
    };
    options.on_error = [this](int status) {
      MutexLock lock(&mutex_);
      errors_.push_back(status);
    };
    auto server = HttpServer::Start(
        std::move(options),
        [this](HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
          Handle(std::move(request), std::move(writer));
        });
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  void Handle(HttpRequest request, std::shared_ptr<ResponseWriter> writer) {
    if (request.path == "/echo") {
      HttpResponse response;
      response.content_type = "text/plain";
      response.body = absl::StrCat(request.method, " ", request.path, " ",
                                   request.query, " ", request.body);
      return writer->Send(std::move(response));
    }
    MutexLock lock(&mutex_);
    held_.push_back({std::move(request), std::move(writer)});
    changed_.SignalAll();
  }

  // The next request that waits; a null writer if none comes.
  Exchange Next() {
    const absl::Time deadline = Soon();
    MutexLock lock(&mutex_);
    while (held_.empty()) {
      if (!changed_.WaitUntil(&mutex_, deadline) && held_.empty()) return {};
    }
    Exchange exchange = std::move(held_.front());
    held_.erase(held_.begin());
    return exchange;
  }

  std::vector<int> errors() {
    MutexLock lock(&mutex_);
    return errors_;
  }

  std::unique_ptr<RawHttpConnection> Connect(int receive_buffer_bytes = 0) {
    return RawHttpConnection::Connect(server_->port(), receive_buffer_bytes);
  }

  void TearDown() override {
    MutexLock lock(&mutex_);
    held_.clear();
  }

  Mutex mutex_;
  CondVar changed_;
  std::vector<Exchange> held_ ABSL_GUARDED_BY(mutex_);
  std::vector<int> errors_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<HttpServer> server_;  // last: its threads use the others
};

TEST_F(HttpServerTest, AnswersManyRequestsOnOneConnection) {
  Start();
  auto client = Connect();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(
        client->Request("POST", absl::StrCat("/echo?x=", i), "some body"));
    const auto reply = client->ReadReply();
    EXPECT_EQ(reply.status, 200);
    EXPECT_EQ(reply.body, absl::StrCat("POST /echo x=", i, " some body"));
    EXPECT_EQ(reply.head.Get("Content-Type"), "text/plain");
    EXPECT_EQ(reply.head.Get("Connection"), "");
  }
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrder) {
  Start();
  auto client = Connect();
  std::string requests;
  for (int i = 0; i < 100; ++i) {
    absl::StrAppend(&requests, "GET /echo?", i, " HTTP/1.1\r\n\r\n");
  }
  ASSERT_TRUE(client->Send(requests));
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(client->ReadReply().body, absl::StrCat("GET /echo ", i, " "));
  }
}

TEST_F(HttpServerTest, RefusesGarbageBehindARequestAfterAnsweringIt) {
  Start();
  auto client = Connect();
  ASSERT_TRUE(
      client->Send("GET /echo HTTP/1.1\r\n\r\n\x01\x02 garbage\r\n\r\n"));
  EXPECT_EQ(client->ReadReply().status, 200);
  const auto refusal = client->ReadReply();
  EXPECT_EQ(refusal.status, 400);
  EXPECT_THAT(refusal.body, HasSubstr("error 400: not an HTTP/1.1 request"));
  EXPECT_EQ(refusal.head.Get("Connection"), "close");
  EXPECT_TRUE(client->AtEnd());
  EXPECT_THAT(errors(), ::testing::ElementsAre(400));
}

TEST_F(HttpServerTest, RefusesWhatIsNoHttp) {
  Start();
  for (const std::string& bytes :
       {std::string(64, '\0'), std::string("GET\r\n\r\n"),
        std::string("GET / HTTP/9.9\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n"),
        std::string("POST / HTTP/1.1\r\nContent-Length: 5\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n"),
        std::string(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")}) {
    auto client = Connect();
    ASSERT_TRUE(client->Send(bytes));
    EXPECT_EQ(client->ReadReply().status, 400) << bytes;
    EXPECT_TRUE(client->AtEnd());
  }
  EXPECT_EQ(HttpGet(server_->port(), "/echo").status, 200);
}

TEST_F(HttpServerTest, BoundsBodies) {
  HttpServer::Options options;
  options.max_body_bytes = 1000;
  Start(std::move(options));
  auto client = Connect();
  ASSERT_TRUE(client->Request("POST", "/echo", std::string(1000, 'x')));
  EXPECT_EQ(client->ReadReply().status, 200);
  client->Request("POST", "/echo", std::string(1001, 'x'));
  const auto refusal = client->ReadReply();
  EXPECT_EQ(refusal.status, 413);
  EXPECT_THAT(refusal.body, HasSubstr("larger than 1000 bytes"));

  client = Connect();
  ASSERT_TRUE(
      client->Send("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
                   "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"));
  EXPECT_EQ(client->ReadReply().body, "POST /echo  hello world");
  std::string chunks =
      "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (int i = 0; i < 50; ++i) {
    absl::StrAppend(&chunks, "64\r\n", std::string(100, 'x'), "\r\n");
  }
  client->Send(chunks);
  EXPECT_EQ(client->ReadReply().status, 413);
}

// The client sends all of a big body before it reads the refusal.
TEST_F(HttpServerTest, RefusalOfABigBodyIsNotLostInAReset) {
  HttpServer::Options options;
  options.max_body_bytes = 1000;
  Start(std::move(options));
  auto client = Connect();
  client->Request("POST", "/echo", std::string(3 << 20, 'x'));
  EXPECT_EQ(client->ReadReply().status, 413);
}

TEST_F(HttpServerTest, BoundsHeaders) {
  Start();
  auto client = Connect();
  client->Send(
      absl::StrCat("GET /echo HTTP/1.1\r\nA: ", std::string(200'000, 'x')));
  EXPECT_EQ(client->ReadReply().status, 431);
}

TEST_F(HttpServerTest, AsksForTheBodyWhenTheClientWaitsForThat) {
  Start();
  auto client = Connect();
  ASSERT_TRUE(
      client->Send("POST /echo HTTP/1.1\r\nContent-Length: 2\r\nExpect: "
                   "100-continue\r\n\r\n"));
  const auto interim = client->ReadHead();
  ASSERT_TRUE(interim.has_value());
  EXPECT_EQ(interim->status, 100);
  ASSERT_TRUE(client->Send("ok"));
  EXPECT_EQ(client->ReadReply().body, "POST /echo  ok");
}

TEST_F(HttpServerTest, HeadGetsTheHeadersOnly) {
  Start();
  auto client = Connect();
  ASSERT_TRUE(client->Send("HEAD /echo HTTP/1.1\r\n\r\n"));
  const auto head = client->ReadHead();
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->status, 200);
  EXPECT_EQ(head->Get("Content-Length"), "12");  // "HEAD /echo  "
  // The next answer begins at once behind it.
  ASSERT_TRUE(client->Request("GET", "/echo"));
  EXPECT_EQ(client->ReadReply().body, "GET /echo  ");
}

TEST_F(HttpServerTest, Http10GetsNoChunksAndAnEnd) {
  Start();
  auto client = Connect();
  ASSERT_TRUE(client->Send("GET /held HTTP/1.0\r\n\r\n"));
  Exchange exchange = Next();
  ASSERT_NE(exchange.writer, nullptr);
  exchange.writer->StartStream({});
  exchange.writer->Write("one ");
  exchange.writer->Write("two");
  exchange.writer->Finish();
  const auto head = client->ReadHead();
  ASSERT_TRUE(head.has_value());
  EXPECT_EQ(head->Get("Transfer-Encoding"), "");
  EXPECT_EQ(client->ReadToEnd(), "one two");
}

TEST_F(HttpServerTest, StreamsEachWriteAsItComes) {
  Start();
  auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/held"));
  Exchange exchange = Next();
  ASSERT_NE(exchange.writer, nullptr);
  HttpResponse head;
  head.headers = {{"X-Split", "a\r\nInjected: b"}};
  exchange.writer->StartStream(head);
  const auto got = client->ReadHead();
  ASSERT_TRUE(got.has_value());
  EXPECT_THAT(got->text, Not(HasSubstr("\r\nInjected")));
  for (const std::string piece : {"first", "second"}) {
    EXPECT_TRUE(exchange.writer->Write(piece));
    EXPECT_EQ(client->ReadChunk(), piece);
  }
  exchange.writer->Finish();
  EXPECT_EQ(client->ReadChunk(), absl::nullopt);
  ASSERT_TRUE(client->Request("GET", "/echo"));  // the connection stays
  EXPECT_EQ(client->ReadReply().status, 200);
}

TEST_F(HttpServerTest, PostedFunctionsRunInOrderAndOneAtATime) {
  Start();
  auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/held"));
  Exchange exchange = Next();
  ASSERT_NE(exchange.writer, nullptr);
  std::vector<int> order;  // the strand's
  for (int i = 0; i < 1000; ++i) {
    exchange.writer->Post([&order, i] { order.push_back(i); });
  }
  exchange.writer->Post([writer = exchange.writer] { writer->Send({}); });
  EXPECT_EQ(client->ReadReply().status, 200);
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

TEST_F(HttpServerTest, TellsThatTheClientIsGone) {
  Start();
  for (const bool streaming : {false, true}) {
    auto client = Connect();
    ASSERT_TRUE(client->Request("GET", "/held"));
    Exchange exchange = Next();
    ASSERT_NE(exchange.writer, nullptr);
    Event gone;
    exchange.writer->OnGone([&gone] { gone.Set(); });
    if (streaming) exchange.writer->StartStream({});
    client->Close();
    EXPECT_TRUE(gone.Wait());
    EXPECT_FALSE(exchange.writer->Write("x"));
  }
}

TEST_F(HttpServerTest, OnGoneIsForgottenWithTheAnswer) {
  Start();
  auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/held"));
  Exchange exchange = Next();
  ASSERT_NE(exchange.writer, nullptr);
  bool called = false;
  exchange.writer->OnGone([&called] { called = true; });
  exchange.writer->Send({});
  EXPECT_EQ(client->ReadReply().status, 200);
  client->Close();
  server_->Shutdown(absl::Seconds(60));
  EXPECT_FALSE(called);
}

TEST_F(HttpServerTest, CutsAReaderThatDoesNotReadAndNobodyElse) {
  HttpServer::Options options;
  options.num_threads = 1;
  options.max_send_buffer_bytes = 100'000;
  Start(std::move(options));
  auto slow = Connect(/*receive_buffer_bytes=*/4096);
  ASSERT_TRUE(slow->Request("GET", "/held"));
  Exchange exchange = Next();
  ASSERT_NE(exchange.writer, nullptr);
  Event gone;
  exchange.writer->OnGone([&gone] { gone.Set(); });
  exchange.writer->StartStream({});
  const std::string piece(10'000, 'x');
  int64_t written = 0;
  // The kernel takes some megabytes before the buffer begins to fill.
  while (exchange.writer->Write(piece) && written < (int64_t{1} << 30)) {
    written += static_cast<int64_t>(piece.size());
  }
  EXPECT_LT(written, int64_t{1} << 30);
  EXPECT_TRUE(gone.Wait());
  EXPECT_EQ(HttpGet(server_->port(), "/echo").status, 200);
}

TEST_F(HttpServerTest, DroppedWriterCutsTheConnection) {
  Start();
  auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/held"));
  Exchange exchange = Next();
  ASSERT_NE(exchange.writer, nullptr);
  exchange.writer.reset();
  EXPECT_TRUE(client->AtEnd());
}

TEST_F(HttpServerTest, RefusesConnectionsBeyondTheLimit) {
  HttpServer::Options options;
  options.max_connections = 2;
  Start(std::move(options));
  auto first = Connect();
  auto second = Connect();
  for (auto* client : {first.get(), second.get()}) {
    ASSERT_TRUE(client->Request("GET", "/echo"));
    ASSERT_EQ(client->ReadReply().status, 200);
  }
  auto third = Connect();
  const auto refusal = third->ReadReply();
  EXPECT_EQ(refusal.status, 503);
  EXPECT_EQ(refusal.head.Get("Retry-After"), "1");
}

TEST_F(HttpServerTest, ClosesIdleConnections) {
  HttpServer::Options options;
  options.idle_timeout = absl::Milliseconds(50);
  Start(std::move(options));
  auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/echo"));
  EXPECT_EQ(client->ReadReply().status, 200);
  EXPECT_TRUE(client->AtEnd());
}

TEST_F(HttpServerTest, RefusesRequestsThatDoNotArrive) {
  HttpServer::Options options;
  options.read_timeout = absl::Milliseconds(50);
  Start(std::move(options));
  auto client = Connect();
  ASSERT_TRUE(
      client->Send("POST /echo HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf"));
  EXPECT_EQ(client->ReadReply().status, 408);
}

TEST_F(HttpServerTest, SaysThatThePortIsInUse) {
  Start();
  HttpServer::Options options;
  options.port = server_->port();
  EXPECT_THAT(HttpServer::Start(options, nullptr),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr(absl::StrCat(":", server_->port()))));
  options.port = 70'000;
  EXPECT_THAT(HttpServer::Start(options, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("70000")));
}

TEST_F(HttpServerTest, DrainLetsAnswersEndAndClosesTheRest) {
  Start();
  auto idle = Connect();
  ASSERT_TRUE(idle->Request("GET", "/echo"));
  ASSERT_EQ(idle->ReadReply().status, 200);
  auto busy = Connect();
  ASSERT_TRUE(busy->Request("GET", "/held"));
  Exchange exchange = Next();
  ASSERT_NE(exchange.writer, nullptr);
  exchange.writer->StartStream({});
  const auto head = busy->ReadHead();
  ASSERT_TRUE(head.has_value());

  std::thread shutdown([this] { server_->Shutdown(absl::Seconds(60)); });
  EXPECT_TRUE(idle->AtEnd());
  exchange.writer->Write("last words");
  exchange.writer->Finish();
  EXPECT_EQ(busy->ReadBody(*head), "last words");
  EXPECT_TRUE(busy->AtEnd());
  busy->Close();
  shutdown.join();
  EXPECT_EQ(server_->num_connections(), 0);
  EXPECT_EQ(Connect(), nullptr);
}

TEST_F(HttpServerTest, ShutdownCutsWhatDoesNotEnd) {
  Start();
  auto client = Connect();
  ASSERT_TRUE(client->Request("GET", "/held"));
  Exchange exchange = Next();
  ASSERT_NE(exchange.writer, nullptr);
  bool gone = false;
  exchange.writer->OnGone([&gone] { gone = true; });
  server_->Shutdown(absl::Milliseconds(10));
  EXPECT_TRUE(gone);
  EXPECT_TRUE(client->AtEnd());
}

}  // namespace
}  // namespace switchyard::router
