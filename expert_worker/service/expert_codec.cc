#include "expert_worker/service/expert_codec.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace switchyard::expert_worker {
namespace {

// Tensors travel as they lie in memory.
static_assert(std::endian::native == std::endian::little);

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

v1::Result* MakeResult(uint64_t sequence, const ComputeTimes& times,
                       v1::ExpertReply* reply) {
  v1::Result* result = reply->mutable_result();
  result->set_sequence(sequence);
  result->set_queue_nanos(Nanos(times.queue));
  result->set_compute_nanos(Nanos(times.compute));
  return result;
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

absl::Status CheckSizes(const v1::Compute& compute,
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
  // Below 2^31 rows, so this cannot overflow for any H below 2^30.
  const auto want = static_cast<uint64_t>(num_rows) *
                    static_cast<uint64_t>(identity.hidden_size) * sizeof(float);
  if (compute.activations().size() != want) {
    return absl::InvalidArgumentError(absl::StrCat(
        compute.activations().size(), " bytes of activations, but ", num_rows,
        " rows of ", identity.hidden_size, " floats need ", want));
  }
  if (compute.runs().empty()) {
    return absl::InvalidArgumentError("no runs: nothing to compute");
  }
  return absl::OkStatus();
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
  if (hello.protocol_version() != kExpertProtocolVersion) {
    return {Refusal::kVersion,
            Differs("protocol version", hello.protocol_version(),
                    kExpertProtocolVersion)};
  }
  if (hello.model_fingerprint() != identity.model_fingerprint) {
    return {Refusal::kFingerprint,
            Differs("model fingerprint", hello.model_fingerprint(),
                    identity.model_fingerprint)};
  }
  if (hello.weight_format() != v1::WEIGHT_FORMAT_CHECKPOINT_F32) {
    return {
        Refusal::kWeightFormat,
        Differs("weight format", v1::WeightFormat_Name(hello.weight_format()),
                v1::WeightFormat_Name(v1::WEIGHT_FORMAT_CHECKPOINT_F32))};
  }
  if (hello.activation_format() != v1::ACTIVATION_FORMAT_F32) {
    return {Refusal::kActivationFormat,
            Differs("activation format",
                    v1::ActivationFormat_Name(hello.activation_format()),
                    v1::ActivationFormat_Name(v1::ACTIVATION_FORMAT_F32))};
  }
  return {};
}

v1::ExpertReply WelcomeToProto(const WorkerIdentity& identity,
                               const model::ExpertSet& holdings) {
  v1::ExpertReply reply;
  v1::Welcome* welcome = reply.mutable_welcome();
  welcome->set_protocol_version(kExpertProtocolVersion);
  welcome->set_model_fingerprint(identity.model_fingerprint);
  welcome->set_weight_format(v1::WEIGHT_FORMAT_CHECKPOINT_F32);
  welcome->set_instance_id(identity.instance_id);
  welcome->set_num_layers(static_cast<uint32_t>(identity.num_layers));
  welcome->set_num_experts(static_cast<uint32_t>(identity.num_experts));
  welcome->set_holdings(holdings.ToBitmap());
  welcome->set_max_rows_in_flight(
      static_cast<uint64_t>(identity.max_rows_in_flight));
  return reply;
}

v1::ExpertReply HoldingsToProto(const model::ExpertSet& holdings) {
  v1::ExpertReply reply;
  reply.mutable_holdings()->set_holdings(holdings.ToBitmap());
  return reply;
}

absl::StatusOr<ComputeRequest> ComputeFromProto(
    const v1::Compute& compute, const WorkerIdentity& identity) {
  if (absl::Status status = CheckSizes(compute, identity); !status.ok()) {
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
  request.rows.resize(compute.activations().size() / sizeof(float));
  std::memcpy(request.rows.data(), compute.activations().data(),
              compute.activations().size());
  // What does not fit a Duration's integers is as good as no limit.
  if (compute.timeout_micros() != 0 &&
      compute.timeout_micros() <=
          static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    request.timeout =
        absl::Microseconds(static_cast<int64_t>(compute.timeout_micros()));
  }
  return request;
}

v1::ExpertReply OutputsToProto(uint64_t sequence,
                               absl::Span<const float> outputs,
                               const ComputeTimes& times) {
  v1::ExpertReply reply;
  MakeResult(sequence, times, &reply)
      ->set_outputs(outputs.data(), outputs.size() * sizeof(float));
  return reply;
}

v1::ExpertReply FailureToProto(uint64_t sequence, const absl::Status& status,
                               const ComputeTimes& times) {
  SY_CHECK(!status.ok());
  v1::ExpertReply reply;
  v1::Result* result = MakeResult(sequence, times, &reply);
  result->set_code(static_cast<uint32_t>(status.code()));
  result->set_message(std::string(status.message()));
  return reply;
}

}  // namespace switchyard::expert_worker
