// A client of an expert worker, and servers that say what they are told.

#ifndef SWITCHYARD_TESTS_ATTENTION_WORKER_CLIENT_GRPC_EXPERT_CLIENT_FIXTURE_H_
#define SWITCHYARD_TESTS_ATTENTION_WORKER_CLIENT_GRPC_EXPERT_CLIENT_FIXTURE_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attention_worker/client/grpc_expert_client.h"
#include "base/mutex.h"
#include "gmock/gmock.h"
#include "grpcpp/support/server_callback.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "tests/attention_worker/client/client_test_util.h"
#include "tests/attention_worker/client/scripted_expert_server.h"
#include "tests/testing/fake_expert_worker.h"
#include "tests/testing/matchers.h"

namespace switchyard::attention_worker {

inline constexpr int64_t kHidden = 8;

inline v1::ExpertReply GoodWelcome() {
  v1::ExpertReply reply;
  v1::Welcome* welcome = reply.mutable_welcome();
  welcome->set_protocol_version(2);
  welcome->set_model_fingerprint("f00d");
  welcome->set_weight_format(v1::WEIGHT_FORMAT_CHECKPOINT_F32);
  welcome->set_instance_id("scripted");
  welcome->set_num_layers(3);
  welcome->set_num_experts(16);
  welcome->set_holdings(std::string(6, '\xff'));
  welcome->set_max_rows_in_flight(64);
  return reply;
}

// As many rows of zeros as the request asks for.
inline v1::ExpertReply ZeroResult(const v1::Compute& compute) {
  v1::ExpertReply reply;
  v1::Result* result = reply.mutable_result();
  result->set_sequence(compute.sequence());
  size_t outputs = 0;
  for (const v1::ExpertRun& run : compute.runs()) outputs += run.rows_size();
  result->set_outputs(std::string(outputs * kHidden * sizeof(float), '\0'));
  return reply;
}

// Reads the hello, and sends a good welcome.
inline bool Greet(ScriptedExpertServer::Stream* stream) {
  v1::ExpertRequest request;
  return stream->Read(&request) && request.has_hello() &&
         stream->Write(GoodWelcome());
}

inline void ReadToTheEnd(ScriptedExpertServer::Stream* stream) {
  v1::ExpertRequest request;
  while (stream->Read(&request)) {
  }
}

inline TestCall OneRow(float seed = 1) {
  return MakeExpertCall(1, {4}, 1, kHidden, seed);
}

class GrpcExpertClientTest : public ::testing::Test {
 protected:
  GrpcExpertClientOptions Options(const std::string& address) {
    return {.address = address,
            .model_fingerprint = "f00d",
            .num_layers = 3,
            .num_experts = 16,
            .hidden_size = kHidden,
            .instance_id = "test",
            .registry = registry_.get(),
            .min_backoff = absl::Milliseconds(10),
            .max_backoff = absl::Milliseconds(50),
            .refused_backoff = absl::Milliseconds(50)};
  }
  void Connect(GrpcExpertClientOptions options) {
    client_ = NewGrpcExpertClient(std::move(options)).value();
    client_->SetListener([this] { ++changes_; });
  }
  bool WaitUntilConnected() {
    return Eventually([this] { return client_->health().ok(); });
  }
  double Metric(const std::string& line) {
    const std::string text = registry_->Expose();
    const size_t at = text.find("\n" + line + " ");
    return at == std::string::npos
               ? -1
               : std::stod(text.substr(at + line.size() + 2));
  }
  std::string WithWorker(const std::string& name) {
    return absl::StrCat(name, "{worker=\"", client_->name(), "\"}");
  }

  std::unique_ptr<metrics::Registry> registry_ = metrics::Registry::Create();
  std::atomic<int> changes_ = 0;
  std::unique_ptr<ExpertClient> client_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_TESTS_ATTENTION_WORKER_CLIENT_GRPC_EXPERT_CLIENT_FIXTURE_H_
