// switchyard.v1 expert messages <-> the dispatcher's own types, on the client's
// side. Pure functions: no state, no I/O.
//
// Everything that a worker can get wrong is refused here, with the numbers in
// the text.

#ifndef SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_CODEC_H_
#define SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_CODEC_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "attention_worker/moe/expert_client.h"
#include "model/expert_set.h"
#include "proto/expert.pb.h"

namespace switchyard::attention_worker {

inline constexpr uint32_t kExpertProtocolVersion = 1;

// What a worker must agree with.
struct ExpectedWorker {
  std::string model_fingerprint;
  int num_layers = 0;       // L
  int num_experts = 0;      // E
  int64_t hidden_size = 0;  // H
};

// A worker that agrees, in its own words.
struct WorkerTerms {
  std::string instance_id;
  model::ExpertSet holdings;
  int64_t max_rows_in_flight = 0;  // >= 1
};

// Where a call's time was spent, as the worker says; within [0, 1 h].
struct WorkerTimes {
  absl::Duration queue;
  absl::Duration compute;
};

v1::ExpertRequest HelloToProto(const ExpectedWorker& expected,
                               absl::string_view instance_id);

// `now` turns the deadline into the time that is left of it.
v1::ExpertRequest CallToProto(const ExpertCall& call, uint64_t sequence,
                              absl::Time now);

// FAILED_PRECONDITION: another protocol version, model, weight format or shape;
// the text has both sides' values. INVALID_ARGUMENT: a holdings bitmap or a
// limit that cannot be.
absl::StatusOr<WorkerTerms> TermsFromProto(const v1::Welcome& welcome,
                                           const ExpectedWorker& expected);

// INVALID_ARGUMENT: not a bitmap over L * E.
absl::StatusOr<model::ExpertSet> HoldingsFromProto(
    absl::string_view bitmap, const ExpectedWorker& expected);

WorkerTimes TimesFromProto(const v1::Result& result);

// What the worker says went wrong with the call; OK if nothing did. A code that
// is none of google.rpc.Code's is UNKNOWN.
absl::Status FailureFromProto(const v1::Result& result);

// REQUIRES: FailureFromProto(result).ok(). INVALID_ARGUMENT: not
// `num_outputs` rows of H floats.
absl::StatusOr<ExpertReply> OutputsFromProto(const v1::Result& result,
                                             int64_t num_outputs,
                                             int64_t hidden_size);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_CODEC_H_
