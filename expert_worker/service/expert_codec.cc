#include "expert_worker/service/expert_codec.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "base/check.h"
#include "rpc/payload_message.h"

namespace switchyard::expert_worker {
namespace {

// Tensors travel as they lie in memory.
static_assert(std::endian::native == std::endian::little);

constexpr rpc::PayloadField kActivations = {
    .inner = v1::ExpertRequest::kComputeFieldNumber,
    .payload = v1::Compute::kActivationsFieldNumber};
constexpr rpc::PayloadField kOutputs = {
    .inner = v1::ExpertReply::kResultFieldNumber,
    .payload = v1::Result::kOutputsFieldNumber};

template <typename T>
absl::Status Differs(absl::string_view what, const T& theirs, const T& ours) {
  return absl::FailedPreconditionError(
      absl::StrCat(what, " differs: the attention worker has ", theirs,
                   ", this expert worker has ", ours));
}

uint64_t Nanos(absl::Duration duration) {
  return static_cast<uint64_t>(
      std::max<int64_t>(0, absl::ToInt64Nanoseconds(duration)));
}

void FillResult(uint64_t sequence, const ComputeTimes& times,
                v1::Result* result) {
  result->set_sequence(sequence);
  result->set_queue_nanos(Nanos(times.queue));
  result->set_compute_nanos(Nanos(times.compute));
  result->set_received_unix_nanos(Nanos(times.received - absl::UnixEpoch()));
}

// Copies one run; `previous` is the expert of the run before it, or -1.
absl::StatusOr<experts::ExpertRun> RunFromProto(const v1::ExpertRun& run,
                                                int64_t previous,
                                                int64_t num_rows,
                                                int num_experts) {
  if (run.expert() >= static_cast<uint32_t>(num_experts)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expert ", run.expert(), " of a model that has ", num_experts));
  }
  if (static_cast<int64_t>(run.expert()) <= previous) {
    return absl::InvalidArgumentError(
        absl::StrCat("runs are not ascending by expert: ", run.expert(),
                     " after ", previous));
  }
  if (run.rows().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the run of expert ", run.expert(), " has no rows"));
  }
  int64_t last = -1;
  for (const uint32_t row : run.rows()) {
    if (row >= num_rows || row <= last) {
      return absl::InvalidArgumentError(absl::StrCat(
          "row ", row, " after ", last, " in the run of expert ", run.expert(),
          ": rows are ascending and below ", num_rows));
    }
    last = row;
  }
  return experts::ExpertRun{static_cast<int>(run.expert()),
                            {run.rows().begin(), run.rows().end()}};
}

// Bytes of `num_rows` rows of activations.
// Below 2^31 rows, so this cannot overflow for any H below 2^30.
size_t ActivationBytes(int64_t num_rows, const WorkerIdentity& identity) {
  return static_cast<size_t>(
      num_rows * fabric::ActivationRowBytes(
                     fabric::ActivationFormatOf(identity.weight_format),
                     identity.hidden_size));
}

absl::Status CheckSizes(const v1::Compute& compute, size_t activation_bytes,
                        const WorkerIdentity& identity) {
  if (compute.layer() >= static_cast<uint32_t>(identity.num_layers)) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", compute.layer(),
                                                   " of a model that has ",
                                                   identity.num_layers));
  }
  const int64_t num_rows = compute.num_rows();
  if (num_rows < 1 || num_rows > identity.max_rows_in_flight ||
      num_rows > std::numeric_limits<int32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat(
        num_rows, " rows, but a call has 1 to ", identity.max_rows_in_flight));
  }
  const size_t want = ActivationBytes(num_rows, identity);
  if (activation_bytes != want) {
    return absl::InvalidArgumentError(
        absl::StrCat(activation_bytes, " bytes of activations, but ", num_rows,
                     " rows of ", identity.hidden_size, " columns as ",
                     v1::ActivationFormat_Name(
                         fabric::ActivationFormatOf(identity.weight_format)),
                     " need ", want));
  }
  if (compute.runs().empty()) {
    return absl::InvalidArgumentError("no runs: nothing to compute");
  }
  return absl::OkStatus();
}

// What ActivationFormat says of quantised rows.
absl::Status CheckQuantized(const kernels::QuantizedRows& rows,
                            int64_t num_rows) {
  const int64_t columns = kernels::PaddedColumns(rows.cols);
  const int64_t groups = kernels::NumGroups(rows.cols);
  int8_t least = 0;
  for (int64_t i = 0; i < num_rows * columns; ++i) {
    least = std::min(least, rows.values[i]);
  }
  if (least < -127) {
    return absl::InvalidArgumentError(
        "a quantised activation is -128; they are -127 to 127");
  }
  bool scales_ok = true;
  for (int64_t i = 0; i < num_rows * groups; ++i) {
    const float scale = rows.scales[i];
    scales_ok &= std::isnan(scale) || (scale >= 0 && std::isfinite(scale));
  }
  if (!scales_ok) {
    return absl::InvalidArgumentError(
        "a scale of quantised activations is below 0 or infinite");
  }
  const int64_t used_groups =
      (rows.cols + kernels::kGroupColumns - 1) / kernels::kGroupColumns;
  for (int64_t row = 0; row < num_rows; ++row) {
    const int8_t* const values = rows.values + row * columns;
    const float* const scales = rows.scales + row * groups;
    if (std::any_of(values + rows.cols, values + columns,
                    [](int8_t value) { return value != 0; }) ||
        std::any_of(scales + used_groups, scales + groups,
                    [](float scale) { return !(scale == 0); })) {
      return absl::InvalidArgumentError(absl::StrCat(
          "quantised activations beyond column ", rows.cols, " are not 0"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ActivationRows> RowsFromBytes(const BytePieces& bytes,
                                             int64_t num_rows,
                                             const WorkerIdentity& identity,
                                             BufferPool* buffers) {
  const v1::ActivationFormat format =
      fabric::ActivationFormatOf(identity.weight_format);
  if (format != v1::ACTIVATION_FORMAT_I8_GROUP32) {
    PooledBuffer values = buffers->Take(bytes.size());
    bytes.CopyTo(0, bytes.size(), values.data());
    return format == v1::ACTIVATION_FORMAT_F32
               ? ActivationRows::Floats(std::move(values))
               : ActivationRows::Rounded(std::move(values));
  }
  PooledBuffer buffer = buffers->Take(
      ActivationRows::QuantizedBytes(num_rows, identity.hidden_size));
  bytes.CopyTo(0, bytes.size(), buffer.data());
  ActivationRows rows = ActivationRows::Quantized(std::move(buffer), num_rows,
                                                  identity.hidden_size);
  absl::Status status = CheckQuantized(rows.quantized(), num_rows);
  if (!status.ok()) return status;
  return rows;
}

}  // namespace

absl::string_view RefusalName(Refusal refusal) {
  switch (refusal) {
    case Refusal::kNone:
      return "none";
    case Refusal::kNotReady:
      return "not_ready";
    case Refusal::kVersion:
      return "version";
    case Refusal::kFingerprint:
      return "fingerprint";
    case Refusal::kWeightFormat:
      return "weight_format";
    case Refusal::kActivationFormat:
      return "activation_format";
    case Refusal::kMalformed:
      return "malformed";
  }
  return "unknown";
}

HelloVerdict CheckHello(const v1::Hello& hello,
                        const WorkerIdentity& identity) {
  const fabric::ProtocolRange theirs = fabric::RangeOf(hello);
  const absl::optional<uint32_t> version =
      fabric::CommonVersion(theirs, identity.versions);
  if (!version.has_value()) {
    return {Refusal::kVersion,
            Differs("protocol version", fabric::FormatRange(theirs),
                    fabric::FormatRange(identity.versions))};
  }
  if (hello.model_fingerprint() != identity.model_fingerprint) {
    return {Refusal::kFingerprint,
            Differs("model fingerprint", hello.model_fingerprint(),
                    identity.model_fingerprint)};
  }
  if (hello.weight_format() != identity.weight_format) {
    return {
        Refusal::kWeightFormat,
        Differs("weight format", v1::WeightFormat_Name(hello.weight_format()),
                v1::WeightFormat_Name(identity.weight_format))};
  }
  const v1::ActivationFormat activation_format =
      fabric::ActivationFormatOf(identity.weight_format);
  if (hello.activation_format() != activation_format) {
    return {Refusal::kActivationFormat,
            Differs("activation format",
                    v1::ActivationFormat_Name(hello.activation_format()),
                    v1::ActivationFormat_Name(activation_format))};
  }
  return {.protocol_version = *version};
}

v1::ExpertReply WelcomeToProto(const WorkerIdentity& identity,
                               const model::ExpertSet& holdings,
                               uint32_t protocol_version) {
  v1::ExpertReply reply;
  v1::Welcome* welcome = reply.mutable_welcome();
  welcome->set_protocol_version(protocol_version);
  welcome->set_model_fingerprint(identity.model_fingerprint);
  welcome->set_weight_format(identity.weight_format);
  welcome->set_instance_id(identity.instance_id);
  welcome->set_num_layers(static_cast<uint32_t>(identity.num_layers));
  welcome->set_num_experts(static_cast<uint32_t>(identity.num_experts));
  welcome->set_holdings(holdings.ToBitmap());
  welcome->set_max_rows_in_flight(
      static_cast<uint64_t>(identity.max_rows_in_flight));
  return reply;
}

v1::ExpertReply HoldingsToProto(const model::ExpertSet& before,
                                const model::ExpertSet& after,
                                uint32_t protocol_version) {
  v1::ExpertReply reply;
  std::string bitmap = after.ToBitmap();
  if (protocol_version >= fabric::kHoldingsChangeVersion) {
    v1::HoldingsChange* const change = reply.mutable_holdings_change();
    for (int layer = 0; layer < after.num_layers(); ++layer) {
      for (int expert = 0; expert < after.num_experts(); ++expert) {
        const bool is_held = after.Contains(layer, expert);
        if (before.Contains(layer, expert) == is_held) continue;
        const auto pair =
            static_cast<uint32_t>(layer * after.num_experts() + expert);
        if (is_held) {
          change->add_added(pair);
        } else {
          change->add_removed(pair);
        }
      }
    }
    if (change->ByteSizeLong() < bitmap.size()) return reply;
  }
  reply.mutable_holdings()->set_holdings(std::move(bitmap));
  return reply;
}

absl::StatusOr<DecodedRequest> DecodeRequest(const BytePieces& bytes) {
  DecodedRequest request;
  absl::optional<rpc::SplitMessage> split =
      rpc::SplitPayload(bytes, kActivations);
  if (split.has_value()) {
    if (request.message.mutable_compute()->ParseFromString(split->inner)) {
      request.activations = std::move(split->payload);
      return request;
    }
  } else {
    std::string whole(bytes.size(), '\0');
    bytes.CopyTo(0, whole.size(), whole.data());
    if (request.message.ParseFromString(whole)) {
      if (request.message.has_compute()) {
        const std::unique_ptr<std::string> activations(
            request.message.mutable_compute()->release_activations());
        if (activations != nullptr) {
          request.activations = BytePieces(std::move(*activations));
        }
      }
      return request;
    }
  }
  return absl::InvalidArgumentError("not an ExpertRequest message");
}

ActivationRows ActivationRows::Floats(PooledBuffer floats) {
  ActivationRows rows;
  rows.buffer_ = std::move(floats);
  return rows;
}

ActivationRows ActivationRows::Rounded(PooledBuffer bf16) {
  ActivationRows rows;
  rows.buffer_ = std::move(bf16);
  rows.format_ = kernels::RowFormat::kBF16;
  return rows;
}

size_t ActivationRows::QuantizedBytes(int64_t num_rows, int64_t hidden_size) {
  return static_cast<size_t>(
      num_rows * (kernels::PaddedColumns(hidden_size) +
                  kernels::NumGroups(hidden_size) *
                      static_cast<int64_t>(sizeof(float) + sizeof(int32_t))));
}

ActivationRows ActivationRows::Quantized(PooledBuffer buffer, int64_t num_rows,
                                         int64_t hidden_size) {
  SY_CHECK(buffer.size() == QuantizedBytes(num_rows, hidden_size));
  const int64_t num_values = num_rows * kernels::PaddedColumns(hidden_size);
  const int64_t num_groups = num_rows * kernels::NumGroups(hidden_size);
  auto* const values = buffer.data<int8_t>();
  auto* const scales = reinterpret_cast<float*>(values + num_values);
  auto* const sums = reinterpret_cast<int32_t*>(scales + num_groups);
  for (int64_t group = 0; group < num_groups; ++group) {
    const int8_t* const first = values + group * kernels::kGroupColumns;
    int32_t sum = 0;
    for (int64_t i = 0; i < kernels::kGroupColumns; ++i) sum += first[i];
    sums[group] = sum;
  }
  ActivationRows rows;
  rows.buffer_ = std::move(buffer);
  rows.format_ = kernels::RowFormat::kI8Group32;
  rows.quantized_ = {values, scales, sums, hidden_size};
  return rows;
}

absl::Span<const float> ActivationRows::floats() const {
  return format_ == kernels::RowFormat::kF32 ? buffer_.span<float>()
                                             : absl::Span<const float>();
}

const uint16_t* ActivationRows::rounded() const {
  return format_ == kernels::RowFormat::kBF16 ? buffer_.span<uint16_t>().data()
                                              : nullptr;
}

absl::StatusOr<ComputeRequest> ComputeFromProto(const v1::Compute& compute,
                                                const BytePieces& activations,
                                                const WorkerIdentity& identity,
                                                BufferPool* buffers) {
  if (absl::Status status = CheckSizes(compute, activations.size(), identity);
      !status.ok()) {
    return status;
  }
  ComputeRequest request;
  request.sequence = compute.sequence();
  request.layer = static_cast<int>(compute.layer());
  request.num_rows = compute.num_rows();
  const int64_t max_outputs =
      kMaxOutputBytes /
      (identity.hidden_size * static_cast<int64_t>(sizeof(float)));
  int64_t previous = -1;
  for (const v1::ExpertRun& run : compute.runs()) {
    absl::StatusOr<experts::ExpertRun> decoded =
        RunFromProto(run, previous, request.num_rows, identity.num_experts);
    if (!decoded.ok()) return decoded.status();
    previous = decoded->expert;
    request.num_outputs += static_cast<int64_t>(decoded->rows.size());
    if (request.num_outputs > max_outputs) {
      return absl::InvalidArgumentError(
          absl::StrCat("more than ", max_outputs,
                       " outputs, which is what one reply can carry"));
    }
    request.runs.push_back(*std::move(decoded));
  }
  absl::StatusOr<ActivationRows> rows =
      RowsFromBytes(activations, request.num_rows, identity, buffers);
  if (!rows.ok()) return rows.status();
  request.rows = *std::move(rows);
  // What does not fit a Duration's integers is as good as no limit.
  if (compute.timeout_micros() != 0 &&
      compute.timeout_micros() <=
          static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    request.timeout =
        absl::Microseconds(static_cast<int64_t>(compute.timeout_micros()));
  }
  return request;
}

std::string BytesBeforeOutputs(uint64_t sequence, size_t num_bytes,
                               const ComputeTimes& times) {
  v1::Result result;
  FillResult(sequence, times, &result);
  return rpc::EncodeBeforePayload(kOutputs, result, num_bytes);
}

v1::ExpertReply FailureToProto(uint64_t sequence, const absl::Status& status,
                               const ComputeTimes& times) {
  SY_CHECK(!status.ok());
  v1::ExpertReply reply;
  v1::Result* const result = reply.mutable_result();
  FillResult(sequence, times, result);
  result->set_code(static_cast<uint32_t>(status.code()));
  result->set_message(std::string(status.message()));
  return reply;
}

}  // namespace switchyard::expert_worker
