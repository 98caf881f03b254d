// switchyard.v1 expert messages <-> the engine's own types, on the worker's
// side. Pure functions: no state, no I/O.
//
// Everything that a client can get wrong is refused here, with the numbers in
// the text; past this file a request is known to be well formed.

#ifndef SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_CODEC_H_
#define SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/buffer_pool.h"
#include "base/byte_pieces.h"
#include "experts/expert_engine.h"
#include "fabric/wire/expert_terms.h"
#include "kernels/matrix.h"
#include "kernels/quantized.h"
#include "model/expert_set.h"
#include "proto/expert.pb.h"

namespace switchyard::expert_worker {

// Most bytes of outputs in one reply: what fits into a message of 512 MiB
// (rpc/channel.h) beside everything else in it.
inline constexpr int64_t kMaxOutputBytes = (int64_t{512} << 20) - (64 << 10);

// Who this worker is, once it has loaded.
struct WorkerIdentity {
  std::string model_fingerprint;
  std::string instance_id;
  int num_layers = 0;              // L
  int num_experts = 0;             // E
  int64_t hidden_size = 0;         // H
  int64_t max_rows_in_flight = 0;  // on one stream; >= 1
  v1::WeightFormat weight_format = v1::WEIGHT_FORMAT_CHECKPOINT_F32;
  fabric::ProtocolRange versions = {};  // that it speaks
};

// Why a handshake was refused, for the metrics' label.
enum class Refusal {
  kNone,
  kNotReady,  // loading or draining
  kVersion,
  kFingerprint,
  kWeightFormat,
  kActivationFormat,
  kMalformed,  // not a hello, or none in time
};
inline constexpr int kNumRefusals = 7;
absl::string_view RefusalName(Refusal refusal);

struct HelloVerdict {
  // kNone: welcome. Else FAILED_PRECONDITION with both sides' values.
  Refusal refusal = Refusal::kNone;
  absl::Status status = {};
  uint32_t protocol_version = 0;  // of the stream, if welcome
};
HelloVerdict CheckHello(const v1::Hello& hello, const WorkerIdentity& identity);

v1::ExpertReply WelcomeToProto(const WorkerIdentity& identity,
                               const model::ExpertSet& holdings,
                               uint32_t protocol_version);
// What makes `after` of `before`, in the shorter way that the version has.
// REQUIRES: both over the same L and E.
v1::ExpertReply HoldingsToProto(const model::ExpertSet& before,
                                const model::ExpertSet& after,
                                uint32_t protocol_version);

// A message of a client; `compute` comes without its activations.
struct DecodedRequest {
  v1::ExpertRequest message;
  BytePieces activations;
};
// INVALID_ARGUMENT: not an ExpertRequest.
absl::StatusOr<DecodedRequest> DecodeRequest(const BytePieces& bytes);

// Rows of activations as the engine takes them, owned: floats, quantised, or in
// bf16.
class ActivationRows {
 public:
  ActivationRows() = default;
  // [R, H] floats.
  static ActivationRows Floats(PooledBuffer floats);
  // [R, H] bf16.
  static ActivationRows Rounded(PooledBuffer bf16);
  // As ACTIVATION_FORMAT_I8_GROUP32, and behind it room for [R, G] sums, which
  // this fills in.
  static ActivationRows Quantized(PooledBuffer buffer, int64_t num_rows,
                                  int64_t hidden_size);
  // Of that buffer.
  static size_t QuantizedBytes(int64_t num_rows, int64_t hidden_size);

  kernels::RowFormat format() const { return format_; }
  absl::Span<const float> floats() const;  // empty if in another format
  // `values` is null if in another format.
  const kernels::QuantizedRows& quantized() const { return quantized_; }
  const uint16_t* rounded() const;  // null if in another format

 private:
  PooledBuffer buffer_;
  kernels::RowFormat format_ = kernels::RowFormat::kF32;
  kernels::QuantizedRows quantized_;
};

// A Compute message that keeps the contract.
struct ComputeRequest {
  uint64_t sequence = 0;
  int layer = 0;
  int64_t num_rows = 0;  // R
  ActivationRows rows;
  std::vector<experts::ExpertRun> runs;  // ascending by expert; rows ascending
  int64_t num_outputs = 0;               // sum of the runs' sizes
  absl::Duration timeout = absl::InfiniteDuration();
};

// INVALID_ARGUMENT: a layer, expert or row out of range, runs or rows out of
// order or repeated, nothing to compute, another size of activations than
// num_rows says, quantised ones that break their format, more rows than the
// limit, more outputs than a reply can carry.
absl::StatusOr<ComputeRequest> ComputeFromProto(const v1::Compute& compute,
                                                const BytePieces& activations,
                                                const WorkerIdentity& identity,
                                                BufferPool* buffers);

// Where a request's time went.
struct ComputeTimes {
  absl::Time received = absl::UnixEpoch();
  absl::Duration queue;
  absl::Duration compute;
};

// What goes over the wire before outputs of `num_bytes`.
std::string BytesBeforeOutputs(uint64_t sequence, size_t num_bytes,
                               const ComputeTimes& times);
// REQUIRES: !status.ok().
v1::ExpertReply FailureToProto(uint64_t sequence, const absl::Status& status,
                               const ComputeTimes& times);

}  // namespace switchyard::expert_worker

#endif  // SWITCHYARD_EXPERT_WORKER_SERVICE_EXPERT_CODEC_H_
