// The rows of a step that are still under way.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_ACTIVE_BATCH_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_ACTIVE_BATCH_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/layers/layer_context.h"
#include "attention_worker/layers/rope_table.h"

namespace switchyard::attention_worker {

// Sequences one after another, the residual stream of all their rows, and the
// rows' angles. A sequence that fails leaves the batch, and the rows behind it
// move up; what other rows compute does not depend on that. Of one step.
class ActiveBatch {
 public:
  // `rope` is not owned; this sets its rows.
  ActiveBatch(int64_t hidden_size, RopeTable* rope)
      : hidden_size_(hidden_size), rope_(rope) {}

  // Rows at the end, of the caller's sequence number `index`.
  void Add(size_t index, int64_t num_rows, int64_t first_position,
           absl::Time deadline);
  // After the last Add: makes room for the rows, and their angles.
  void Finish();

  int64_t rows() const { return rows_; }
  float* residual() { return residual_.data(); }  // [rows, H]

  // The sequences; the caller fills in a layer's pointers.
  absl::Span<LayerSequence> sequences() { return absl::MakeSpan(sequences_); }
  // The caller's number of sequences()[i].
  size_t index(size_t i) const { return indices_[i]; }

  // Removes the sequences whose status (one each) is not OK.
  void DropFailed(absl::Span<const absl::Status> status);

 private:
  const int64_t hidden_size_;
  RopeTable* const rope_;
  int64_t rows_ = 0;
  std::vector<size_t> indices_;
  std::vector<LayerSequence> sequences_;
  std::vector<float> residual_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_ACTIVE_BATCH_H_
