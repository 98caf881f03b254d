#include "attention_worker/client/expert_codec.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/quantized.h"
#include "rpc/payload_message.h"

namespace switchyard::attention_worker {
namespace {

// Tensors travel as they lie in memory.
static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kMaxNanos = 3'600'000'000'000;  // an hour

constexpr rpc::PayloadField kActivations = {
    .inner = v1::ExpertRequest::kComputeFieldNumber,
    .payload = v1::Compute::kActivationsFieldNumber};
constexpr rpc::PayloadField kOutputs = {
    .inner = v1::ExpertReply::kResultFieldNumber,
    .payload = v1::Result::kOutputsFieldNumber};

template <typename T>
absl::Status CheckSame(absl::string_view what, const T& theirs, const T& ours) {
  if (theirs == ours) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(what, " differs: the expert worker has ", theirs,
                   ", this attention worker has ", ours));
}

PooledBuffer FloatRows(const ExpertCall& call, BufferPool* buffers) {
  const auto hidden = static_cast<size_t>(call.hidden_size);
  PooledBuffer buffer =
      buffers->Take(call.source_rows.size() * hidden * sizeof(float));
  float* to = buffer.data<float>();
  for (const int32_t row : call.source_rows) {
    std::copy_n(&call.rows[static_cast<size_t>(row) * hidden], hidden, to);
    to += hidden;
  }
  return buffer;
}

PooledBuffer QuantizedRows(const ExpertCall& call, BufferPool* buffers) {
  SY_CHECK(call.quantized.values != nullptr &&
           call.quantized.cols == call.hidden_size);
  const auto columns =
      static_cast<size_t>(kernels::PaddedColumns(call.hidden_size));
  const auto groups = static_cast<size_t>(kernels::NumGroups(call.hidden_size));
  const size_t rows = call.source_rows.size();
  PooledBuffer buffer =
      buffers->Take(rows * (columns + groups * sizeof(float)));
  int8_t* values = buffer.data<int8_t>();
  float* scales = reinterpret_cast<float*>(values + rows * columns);
  for (const int32_t row : call.source_rows) {
    const auto source = static_cast<size_t>(row);
    std::copy_n(call.quantized.values + source * columns, columns, values);
    std::copy_n(call.quantized.scales + source * groups, groups, scales);
    values += columns;
    scales += groups;
  }
  return buffer;
}

PooledBuffer RoundedRows(const ExpertCall& call, BufferPool* buffers) {
  SY_CHECK(call.rounded != nullptr);
  const auto hidden = static_cast<size_t>(call.hidden_size);
  PooledBuffer buffer =
      buffers->Take(call.source_rows.size() * hidden * sizeof(uint16_t));
  auto* to = buffer.data<uint16_t>();
  for (const int32_t row : call.source_rows) {
    std::copy_n(call.rounded + static_cast<size_t>(row) * hidden, hidden, to);
    to += hidden;
  }
  return buffer;
}

PooledBuffer RowsAs(v1::ActivationFormat format, const ExpertCall& call,
                    BufferPool* buffers) {
  switch (format) {
    case v1::ACTIVATION_FORMAT_I8_GROUP32:
      return QuantizedRows(call, buffers);
    case v1::ACTIVATION_FORMAT_BF16:
      return RoundedRows(call, buffers);
    default:
      return FloatRows(call, buffers);
  }
}

}  // namespace

v1::ExpertRequest HelloToProto(const ExpectedWorker& expected,
                               absl::string_view instance_id,
                               const fabric::ProtocolRange& versions) {
  v1::ExpertRequest request;
  v1::Hello* hello = request.mutable_hello();
  hello->set_protocol_version(versions.newest);
  hello->set_oldest_protocol_version(versions.oldest);
  hello->set_model_fingerprint(expected.model_fingerprint);
  hello->set_weight_format(expected.weight_format);
  hello->set_activation_format(
      fabric::ActivationFormatOf(expected.weight_format));
  hello->set_instance_id(std::string(instance_id));
  return request;
}

EncodedCall EncodeCall(const ExpertCall& call, v1::ActivationFormat format,
                       uint64_t sequence, BufferPool* buffers) {
  EncodedCall encoded;
  v1::Compute& header = encoded.header;
  header.set_sequence(sequence);
  header.set_layer(static_cast<uint32_t>(call.layer));
  header.set_num_rows(static_cast<uint32_t>(call.num_rows));
  header.mutable_runs()->Reserve(static_cast<int>(call.runs.size()));
  for (const experts::ExpertRun& run : call.runs) {
    v1::ExpertRun* out = header.add_runs();
    out->set_expert(static_cast<uint32_t>(run.expert));
    out->mutable_rows()->Add(run.rows.begin(), run.rows.end());
  }
  encoded.activations = RowsAs(format, call, buffers);
  return encoded;
}

std::string BytesBeforeActivations(EncodedCall* call, absl::Time deadline,
                                   absl::Time now) {
  if (deadline != absl::InfiniteFuture()) {
    // At least 1: 0 would mean no limit.
    call->header.set_timeout_micros(static_cast<uint64_t>(
        std::max<int64_t>(1, absl::ToInt64Microseconds(deadline - now))));
  }
  return rpc::EncodeBeforePayload(kActivations, call->header,
                                  call->activations.size());
}

absl::StatusOr<DecodedReply> DecodeReply(const BytePieces& bytes) {
  DecodedReply reply;
  absl::optional<rpc::SplitMessage> split = rpc::SplitPayload(bytes, kOutputs);
  if (split.has_value()) {
    if (reply.message.mutable_result()->ParseFromString(split->inner)) {
      reply.outputs = std::move(split->payload);
      return reply;
    }
  } else {
    std::string whole(bytes.size(), '\0');
    bytes.CopyTo(0, whole.size(), whole.data());
    if (reply.message.ParseFromString(whole)) {
      if (reply.message.has_result()) {
        std::unique_ptr<std::string> outputs(
            reply.message.mutable_result()->release_outputs());
        if (outputs != nullptr) reply.outputs = BytePieces(*std::move(outputs));
      }
      return reply;
    }
  }
  return absl::InvalidArgumentError("not an ExpertReply message");
}

absl::StatusOr<WorkerTerms> TermsFromProto(
    const v1::Welcome& welcome, const ExpectedWorker& expected,
    const fabric::ProtocolRange& versions) {
  if (welcome.protocol_version() < versions.oldest ||
      welcome.protocol_version() > versions.newest) {
    SY_RETURN_IF_ERROR(CheckSame("protocol version",
                                 absl::StrCat(welcome.protocol_version()),
                                 fabric::FormatRange(versions)));
  }
  SY_RETURN_IF_ERROR(CheckSame("model fingerprint", welcome.model_fingerprint(),
                               expected.model_fingerprint));
  SY_RETURN_IF_ERROR(CheckSame("weight format",
                               v1::WeightFormat_Name(welcome.weight_format()),
                               v1::WeightFormat_Name(expected.weight_format)));
  SY_RETURN_IF_ERROR(CheckSame("number of layers", welcome.num_layers(),
                               static_cast<uint32_t>(expected.num_layers)));
  SY_RETURN_IF_ERROR(CheckSame("number of experts", welcome.num_experts(),
                               static_cast<uint32_t>(expected.num_experts)));
  if (welcome.max_rows_in_flight() == 0) {
    return absl::InvalidArgumentError(
        "the expert worker takes no rows: max_rows_in_flight is 0");
  }
  WorkerTerms terms;
  terms.protocol_version = welcome.protocol_version();
  terms.instance_id = welcome.instance_id();
  SY_ASSIGN_OR_RETURN(terms.holdings,
                      HoldingsFromProto(welcome.holdings(), expected));
  // More than fits is as good as no limit.
  terms.max_rows_in_flight = static_cast<int64_t>(
      std::min<uint64_t>(welcome.max_rows_in_flight(), int64_t{1} << 40));
  return terms;
}

absl::StatusOr<model::ExpertSet> HoldingsFromProto(
    absl::string_view bitmap, const ExpectedWorker& expected) {
  return model::ExpertSet::FromBitmap(expected.num_layers, expected.num_experts,
                                      bitmap);
}

absl::Status ChangeHoldings(const v1::HoldingsChange& change,
                            model::ExpertSet* holdings) {
  const auto num_experts = static_cast<uint32_t>(holdings->num_experts());
  const uint64_t num_pairs =
      uint64_t{num_experts} * static_cast<uint64_t>(holdings->num_layers());
  model::ExpertSet changed = *holdings;
  for (const bool add : {true, false}) {
    for (const uint32_t pair : add ? change.added() : change.removed()) {
      if (pair >= num_pairs) {
        return absl::InvalidArgumentError(
            absl::StrCat("holdings change by pair ", pair, " of ", num_pairs));
      }
      const int layer = static_cast<int>(pair / num_experts);
      const int expert = static_cast<int>(pair % num_experts);
      if (changed.Contains(layer, expert) == add) {
        return absl::InvalidArgumentError(absl::StrCat(
            "expert ", expert, " of layer ", layer,
            add ? " is added, but held already" : " is removed, but not held"));
      }
      if (add) {
        changed.Insert(layer, expert);
      } else {
        changed.Erase(layer, expert);
      }
    }
  }
  *holdings = std::move(changed);
  return absl::OkStatus();
}

WorkerTimes TimesFromProto(const v1::Result& result) {
  const auto duration = [](uint64_t nanos) {
    return absl::Nanoseconds(static_cast<int64_t>(std::min(nanos, kMaxNanos)));
  };
  return {
      .queue = duration(result.queue_nanos()),
      .compute = duration(result.compute_nanos()),
      .received = absl::FromUnixNanos(static_cast<int64_t>(std::min<uint64_t>(
          result.received_unix_nanos(), std::numeric_limits<int64_t>::max())))};
}

absl::Status FailureFromProto(const v1::Result& result) {
  if (result.code() == 0) return absl::OkStatus();
  constexpr uint32_t kLargestCode = 16;  // UNAUTHENTICATED
  if (result.code() > kLargestCode) {
    return absl::UnknownError(
        absl::StrCat("code ", result.code(), ": ", result.message()));
  }
  return absl::Status(static_cast<absl::StatusCode>(result.code()),
                      result.message());
}

absl::StatusOr<ExpertReply> OutputsFromBytes(BytePieces outputs,
                                             int64_t num_outputs,
                                             int64_t hidden_size) {
  const size_t want =
      static_cast<size_t>(num_outputs * hidden_size) * sizeof(float);
  if (outputs.size() != want) {
    return absl::InvalidArgumentError(
        absl::StrCat(outputs.size(), " bytes of outputs, but ", num_outputs,
                     " rows of ", hidden_size, " floats need ", want));
  }
  return ExpertReply(std::move(outputs));
}

}  // namespace switchyard::attention_worker
