#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "attention_worker/client/expert_codec.h"
#include "base/check.h"
#include "expert_worker/service/expert_codec.h"
#include "proto/expert.pb.h"
#include "tests/fuzz/fuzz_target.h"

namespace switchyard::fuzz {
namespace {

// Small, so that few bytes make a good message.
constexpr int kLayers = 5;
constexpr int kExperts = 10;
constexpr int64_t kHidden = 4;
constexpr int64_t kMaxRows = 100;

// All that experts/expert_engine.h asks of a batch.
void CheckRequest(const expert_worker::ComputeRequest& request) {
  SY_CHECK(0 <= request.layer && request.layer < kLayers);
  SY_CHECK(1 <= request.num_rows && request.num_rows <= kMaxRows);
  SY_CHECK(static_cast<int64_t>(request.rows.size()) ==
           request.num_rows * kHidden);
  SY_CHECK(request.timeout > absl::ZeroDuration());
  int64_t outputs = 0;
  int last_expert = -1;
  for (const experts::ExpertRun& run : request.runs) {
    SY_CHECK(last_expert < run.expert && run.expert < kExperts);
    last_expert = run.expert;
    int32_t last_row = -1;
    for (const int32_t row : run.rows) {
      SY_CHECK(last_row < row && row < request.num_rows);
      last_row = row;
      ++outputs;
    }
    SY_CHECK(last_row >= 0);
  }
  SY_CHECK(outputs == request.num_outputs && outputs > 0);
}

void FuzzRequest(const std::string& bytes) {
  v1::ExpertRequest request;
  if (!request.ParseFromString(bytes)) return;
  const expert_worker::WorkerIdentity identity = {
      .model_fingerprint = "f00d",
      .instance_id = "fuzz",
      .num_layers = kLayers,
      .num_experts = kExperts,
      .hidden_size = kHidden,
      .max_rows_in_flight = kMaxRows};
  if (request.has_hello()) {
    const auto verdict = expert_worker::CheckHello(request.hello(), identity);
    SY_CHECK(verdict.status.ok() ==
             (verdict.refusal == expert_worker::Refusal::kNone));
    SY_CHECK(!verdict.status.ok() ||
             request.hello().model_fingerprint() == "f00d");
  }
  if (request.has_compute()) {
    const auto decoded =
        expert_worker::ComputeFromProto(request.compute(), identity);
    if (decoded.ok()) CheckRequest(*decoded);
  }
}

void FuzzReply(const std::string& bytes) {
  v1::ExpertReply reply;
  if (!reply.ParseFromString(bytes)) return;
  const attention_worker::ExpectedWorker expected = {
      .model_fingerprint = "f00d",
      .num_layers = kLayers,
      .num_experts = kExperts,
      .hidden_size = kHidden};
  if (reply.has_welcome()) {
    const auto terms =
        attention_worker::TermsFromProto(reply.welcome(), expected);
    if (terms.ok()) {
      SY_CHECK(reply.welcome().model_fingerprint() == "f00d");
      SY_CHECK(terms->max_rows_in_flight > 0);
      SY_CHECK(terms->holdings.num_layers() == kLayers);
      SY_CHECK(terms->holdings.ToBitmap() == reply.welcome().holdings());
    }
  }
  if (reply.has_holdings()) {
    const auto holdings = attention_worker::HoldingsFromProto(
        reply.holdings().holdings(), expected);
    if (holdings.ok()) {
      SY_CHECK(holdings->ToBitmap() == reply.holdings().holdings());
    }
  }
  if (reply.has_result()) {
    const auto times = attention_worker::TimesFromProto(reply.result());
    for (const absl::Duration time : {times.queue, times.compute}) {
      SY_CHECK(absl::ZeroDuration() <= time && time <= absl::Hours(1));
    }
    const absl::Status failure =
        attention_worker::FailureFromProto(reply.result());
    SY_CHECK(failure.ok() == (reply.result().code() == 0));
    for (const int64_t outputs : {0, 1, 3}) {
      if (!failure.ok()) continue;
      const auto decoded =
          attention_worker::OutputsFromProto(reply.result(), outputs, kHidden);
      if (!decoded.ok()) continue;
      SY_CHECK(static_cast<int64_t>(decoded->outputs.size()) ==
               outputs * kHidden);
    }
  }
}

}  // namespace

void FuzzExpertCodec(absl::Span<const uint8_t> bytes) {
  const std::string message(reinterpret_cast<const char*>(bytes.data()),
                            bytes.size());
  FuzzRequest(message);
  FuzzReply(message);
}

}  // namespace switchyard::fuzz

SWITCHYARD_FUZZER_ENTRY(FuzzExpertCodec);
