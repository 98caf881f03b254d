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
#include "base/buffer_pool.h"
#include "base/byte_pieces.h"
#include "fabric/wire/expert_terms.h"
#include "model/expert_set.h"
#include "proto/expert.pb.h"

namespace switchyard::attention_worker {

// What a worker must agree with.
struct ExpectedWorker {
  std::string model_fingerprint;
  int num_layers = 0;       // L
  int num_experts = 0;      // E
  int64_t hidden_size = 0;  // H
  v1::WeightFormat weight_format = v1::WEIGHT_FORMAT_CHECKPOINT_F32;
};

// A worker that agrees, in its own words.
struct WorkerTerms {
  uint32_t protocol_version = 0;  // of the stream
  std::string instance_id;
  model::ExpertSet holdings;
  int64_t max_rows_in_flight = 0;  // >= 1
};

// Where a call's time was spent, as the worker says.
struct WorkerTimes {
  absl::Duration queue;  // within [0, 1 h], as is `compute`
  absl::Duration compute;
  absl::Time received;  // by the worker's clock
};

// A greeting by one that speaks these versions.
v1::ExpertRequest HelloToProto(const ExpectedWorker& expected,
                               absl::string_view instance_id,
                               const fabric::ProtocolRange& versions);

// A Compute message: all but its activations, and those in the stream's format.
struct EncodedCall {
  v1::Compute header;
  PooledBuffer activations;
};

// `sequence` names the call on the stream. REQUIRES: the call has its rows in
// the form that the format needs.
EncodedCall EncodeCall(const ExpertCall& call, v1::ActivationFormat format,
                       uint64_t sequence, BufferPool* buffers);

// What goes over the wire before the activations. `now` turns the deadline into
// the time that is left of it.
std::string BytesBeforeActivations(EncodedCall* call, absl::Time deadline,
                                   absl::Time now);

// A message of the worker; `result` comes without its outputs.
struct DecodedReply {
  v1::ExpertReply message;
  BytePieces outputs;
};
// INVALID_ARGUMENT: not an ExpertReply.
absl::StatusOr<DecodedReply> DecodeReply(const BytePieces& bytes);

// FAILED_PRECONDITION: another protocol version, model, weight format or shape;
// the text has both sides' values. INVALID_ARGUMENT: a holdings bitmap or a
// limit that cannot be.
absl::StatusOr<WorkerTerms> TermsFromProto(
    const v1::Welcome& welcome, const ExpectedWorker& expected,
    const fabric::ProtocolRange& versions);

// INVALID_ARGUMENT: not a bitmap over L * E.
absl::StatusOr<model::ExpertSet> HoldingsFromProto(
    absl::string_view bitmap, const ExpectedWorker& expected);

// Carries out a change. INVALID_ARGUMENT: a pair beyond L * E, added though it
// was held, or removed though it was not; then nothing is changed.
absl::Status ChangeHoldings(const v1::HoldingsChange& change,
                            model::ExpertSet* holdings);

WorkerTimes TimesFromProto(const v1::Result& result);

// What the worker says went wrong with the call; OK if nothing did. A code that
// is none of google.rpc.Code's is UNKNOWN.
absl::Status FailureFromProto(const v1::Result& result);

// INVALID_ARGUMENT: not `num_outputs` rows of H floats.
absl::StatusOr<ExpertReply> OutputsFromBytes(BytePieces outputs,
                                             int64_t num_outputs,
                                             int64_t hidden_size);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_CODEC_H_
