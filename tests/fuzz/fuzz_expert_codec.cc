#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "attention_worker/client/expert_codec.h"
#include "base/buffer_pool.h"
#include "base/byte_pieces.h"
#include "base/check.h"
#include "expert_worker/service/expert_codec.h"
#include "kernels/quantized.h"
#include "proto/expert.pb.h"
#include "tests/fuzz/fuzz_target.h"

namespace switchyard::fuzz {
namespace {

// Small, so that few bytes make a good message.
constexpr int kLayers = 5;
constexpr int kExperts = 10;
constexpr int64_t kHidden = 4;
constexpr int64_t kMaxRows = 100;

std::shared_ptr<BufferPool> Buffers() {
  static const std::shared_ptr<BufferPool>& buffers =
      *new std::shared_ptr<BufferPool>(BufferPool::Create(1 << 20));
  return buffers;
}

// The message in pieces, as a network may deliver it.
BytePieces Pieces(const std::string& bytes) {
  auto owner = std::make_shared<std::string>(bytes);
  std::vector<absl::Span<const char>> pieces;
  for (size_t at = 0, n = 1; at < owner->size(); at += n, n = n % 7 + 1) {
    pieces.push_back(absl::MakeConstSpan(*owner).subspan(at, n));
  }
  return BytePieces(std::move(pieces), std::move(owner));
}

void CheckQuantizedRows(const kernels::QuantizedRows& rows, int64_t num_rows) {
  SY_CHECK(rows.cols == kHidden);
  const int64_t columns = kernels::PaddedColumns(kHidden);
  for (int64_t i = 0; i < num_rows * columns; ++i) {
    SY_CHECK(rows.values[i] >= -127);
    SY_CHECK(i % columns < kHidden || rows.values[i] == 0);
  }
  for (int64_t g = 0; g < num_rows * kernels::NumGroups(kHidden); ++g) {
    int32_t sum = 0;
    for (int64_t i = 0; i < kernels::kGroupColumns; ++i) {
      sum += rows.values[g * kernels::kGroupColumns + i];
    }
    SY_CHECK(rows.sums[g] == sum);
    SY_CHECK(!(rows.scales[g] < 0) && !std::isinf(rows.scales[g]));
  }
}

// All that experts/expert_engine.h asks of a batch.
void CheckRequest(const expert_worker::ComputeRequest& request,
                  v1::WeightFormat format) {
  SY_CHECK(0 <= request.layer && request.layer < kLayers);
  SY_CHECK(1 <= request.num_rows && request.num_rows <= kMaxRows);
  if (format == v1::WEIGHT_FORMAT_Q8_GROUP32) {
    SY_CHECK(request.rows.floats().empty());
    SY_CHECK(request.rows.rounded() == nullptr);
    CheckQuantizedRows(request.rows.quantized(), request.num_rows);
  } else if (format == v1::WEIGHT_FORMAT_BF16_DOT) {
    SY_CHECK(request.rows.floats().empty());
    SY_CHECK(request.rows.quantized().values == nullptr);
    // All of them can be read.
    uint16_t bits = 0;
    for (int64_t i = 0; i < request.num_rows * kHidden; ++i) {
      bits |= request.rows.rounded()[i];
    }
    SY_CHECK(bits <= 0xffff);
  } else {
    SY_CHECK(static_cast<int64_t>(request.rows.floats().size()) ==
             request.num_rows * kHidden);
    SY_CHECK(request.rows.quantized().values == nullptr);
    SY_CHECK(request.rows.rounded() == nullptr);
  }
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
  const auto decoded = expert_worker::DecodeRequest(Pieces(bytes));
  v1::ExpertRequest whole;
  // Cut out of the message or not, it is what Protobuf takes it for.
  SY_CHECK(decoded.ok() == whole.ParseFromString(bytes));
  if (!decoded.ok()) return;
  const v1::ExpertRequest& request = decoded->message;
  SY_CHECK(request.kind_case() == whole.kind_case());
  expert_worker::WorkerIdentity identity = {.model_fingerprint = "f00d",
                                            .instance_id = "fuzz",
                                            .num_layers = kLayers,
                                            .num_experts = kExperts,
                                            .hidden_size = kHidden,
                                            .max_rows_in_flight = kMaxRows};
  for (const auto format :
       {v1::WEIGHT_FORMAT_CHECKPOINT_F32, v1::WEIGHT_FORMAT_Q8_GROUP32,
        v1::WEIGHT_FORMAT_BF16_DOT}) {
    identity.weight_format = format;
    if (request.has_hello()) {
      const auto verdict = expert_worker::CheckHello(request.hello(), identity);
      SY_CHECK(verdict.status.ok() ==
               (verdict.refusal == expert_worker::Refusal::kNone));
      SY_CHECK(!verdict.status.ok() ||
               (request.hello().model_fingerprint() == "f00d" &&
                request.hello().weight_format() == format));
    }
    if (request.has_compute()) {
      SY_CHECK(request.compute().activations().empty());
      SY_CHECK(decoded->activations.size() ==
               whole.compute().activations().size());
      const auto compute = expert_worker::ComputeFromProto(
          request.compute(), decoded->activations, identity, Buffers().get());
      if (compute.ok()) {
        CheckRequest(*compute, format);
      }
    }
  }
}

void FuzzReply(const std::string& bytes) {
  const auto decoded = attention_worker::DecodeReply(Pieces(bytes));
  v1::ExpertReply whole;
  SY_CHECK(decoded.ok() == whole.ParseFromString(bytes));
  if (!decoded.ok()) return;
  const v1::ExpertReply& reply = decoded->message;
  SY_CHECK(reply.kind_case() == whole.kind_case());
  const attention_worker::ExpectedWorker expected = {
      .model_fingerprint = "f00d",
      .num_layers = kLayers,
      .num_experts = kExperts,
      .hidden_size = kHidden};
  if (reply.has_welcome()) {
    const auto terms = attention_worker::TermsFromProto(
        reply.welcome(), expected, fabric::kExpertProtocol);
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
  if (reply.has_holdings_change()) {
    model::ExpertSet holdings(kLayers, kExperts);
    holdings.Insert(0, 0);
    const model::ExpertSet before = holdings;
    const v1::HoldingsChange& change = reply.holdings_change();
    if (attention_worker::ChangeHoldings(change, &holdings).ok()) {
      SY_CHECK(holdings.size() ==
               before.size() + change.added_size() - change.removed_size());
    } else {
      SY_CHECK(holdings == before);
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
    SY_CHECK(reply.result().outputs().empty());
    SY_CHECK(decoded->outputs.size() == whole.result().outputs().size());
    for (const int64_t num_outputs : {0, 1, 3}) {
      const auto outputs = attention_worker::OutputsFromBytes(
          decoded->outputs, num_outputs, kHidden);
      if (!outputs.ok()) continue;
      SY_CHECK(static_cast<int64_t>(outputs->num_floats()) ==
               num_outputs * kHidden);
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
