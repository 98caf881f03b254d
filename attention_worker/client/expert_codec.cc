#include "attention_worker/client/expert_codec.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace switchyard::attention_worker {
namespace {

// Tensors travel as they lie in memory.
static_assert(std::endian::native == std::endian::little);

constexpr uint64_t kMaxNanos = 3'600'000'000'000;  // an hour

template <typename T>
absl::Status CheckSame(absl::string_view what, const T& theirs, const T& ours) {
  if (theirs == ours) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(what, " differs: the expert worker has ", theirs,
                   ", this attention worker has ", ours));
}

}  // namespace

v1::ExpertRequest HelloToProto(const ExpectedWorker& expected,
                               absl::string_view instance_id) {
  v1::ExpertRequest request;
  v1::Hello* hello = request.mutable_hello();
  hello->set_protocol_version(kExpertProtocolVersion);
  hello->set_model_fingerprint(expected.model_fingerprint);
  hello->set_weight_format(v1::WEIGHT_FORMAT_CHECKPOINT_F32);
  hello->set_activation_format(v1::ACTIVATION_FORMAT_F32);
  hello->set_instance_id(std::string(instance_id));
  return request;
}

v1::ExpertRequest CallToProto(const ExpertCall& call, uint64_t sequence,
                              absl::Time now) {
  v1::ExpertRequest request;
  v1::Compute* compute = request.mutable_compute();
  compute->set_sequence(sequence);
  compute->set_layer(static_cast<uint32_t>(call.layer));
  compute->set_num_rows(static_cast<uint32_t>(call.num_rows));
  compute->set_activations(call.rows.data(), call.rows.size() * sizeof(float));
  compute->mutable_runs()->Reserve(static_cast<int>(call.runs.size()));
  for (const experts::ExpertRun& run : call.runs) {
    v1::ExpertRun* out = compute->add_runs();
    out->set_expert(static_cast<uint32_t>(run.expert));
    out->mutable_rows()->Add(run.rows.begin(), run.rows.end());
  }
  if (call.deadline != absl::InfiniteFuture()) {
    // At least 1: 0 would mean no limit.
    compute->set_timeout_micros(static_cast<uint64_t>(
        std::max<int64_t>(1, absl::ToInt64Microseconds(call.deadline - now))));
  }
  return request;
}

absl::StatusOr<WorkerTerms> TermsFromProto(const v1::Welcome& welcome,
                                           const ExpectedWorker& expected) {
  SY_RETURN_IF_ERROR(CheckSame("protocol version", welcome.protocol_version(),
                               kExpertProtocolVersion));
  SY_RETURN_IF_ERROR(CheckSame("model fingerprint", welcome.model_fingerprint(),
                               expected.model_fingerprint));
  SY_RETURN_IF_ERROR(
      CheckSame("weight format", v1::WeightFormat_Name(welcome.weight_format()),
                v1::WeightFormat_Name(v1::WEIGHT_FORMAT_CHECKPOINT_F32)));
  SY_RETURN_IF_ERROR(CheckSame("number of layers", welcome.num_layers(),
                               static_cast<uint32_t>(expected.num_layers)));
  SY_RETURN_IF_ERROR(CheckSame("number of experts", welcome.num_experts(),
                               static_cast<uint32_t>(expected.num_experts)));
  if (welcome.max_rows_in_flight() == 0) {
    return absl::InvalidArgumentError(
        "the expert worker takes no rows: max_rows_in_flight is 0");
  }
  WorkerTerms terms;
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

WorkerTimes TimesFromProto(const v1::Result& result) {
  const auto duration = [](uint64_t nanos) {
    return absl::Nanoseconds(static_cast<int64_t>(std::min(nanos, kMaxNanos)));
  };
  return {.queue = duration(result.queue_nanos()),
          .compute = duration(result.compute_nanos())};
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

absl::StatusOr<ExpertReply> OutputsFromProto(const v1::Result& result,
                                             int64_t num_outputs,
                                             int64_t hidden_size) {
  const size_t floats = static_cast<size_t>(num_outputs * hidden_size);
  const std::string& bytes = result.outputs();
  if (bytes.size() != floats * sizeof(float)) {
    return absl::InvalidArgumentError(absl::StrCat(
        bytes.size(), " bytes of outputs, but ", num_outputs, " rows of ",
        hidden_size, " floats need ", floats * sizeof(float)));
  }
  ExpertReply reply;
  reply.outputs.resize(floats);
  // memcpy's pointers must not be null, even for no bytes.
  if (floats > 0) std::memcpy(reply.outputs.data(), bytes.data(), bytes.size());
  return reply;
}

}  // namespace switchyard::attention_worker
