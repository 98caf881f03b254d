#include "attention_worker/layers/active_batch.h"

#include <cstring>

#include "base/check.h"

namespace switchyard::attention_worker {

void ActiveBatch::Add(size_t index, int64_t num_rows, int64_t first_position,
                      absl::Time deadline) {
  SY_CHECK(num_rows >= 1);
  LayerSequence sequence;
  sequence.first_row = rows_;
  sequence.num_rows = num_rows;
  sequence.first_position = first_position;
  sequence.deadline = deadline;
  sequences_.push_back(sequence);
  indices_.push_back(index);
  rows_ += num_rows;
}

void ActiveBatch::Finish() {
  residual_.resize(rows_ * hidden_size_);
  rope_->SetRows(sequences_, rows_);
}

void ActiveBatch::DropFailed(absl::Span<const absl::Status> status) {
  SY_CHECK(status.size() == sequences_.size());
  size_t kept = 0;
  int64_t rows = 0;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    if (!status[i].ok()) continue;
    LayerSequence sequence = sequences_[i];
    // Rows move up only: a later one is never overwritten before it is moved.
    std::memmove(&residual_[rows * hidden_size_],
                 &residual_[sequence.first_row * hidden_size_],
                 sequence.num_rows * hidden_size_ * sizeof(float));
    sequence.first_row = rows;
    rows += sequence.num_rows;
    sequences_[kept] = sequence;
    indices_[kept] = indices_[i];
    ++kept;
  }
  if (kept == sequences_.size()) return;
  sequences_.resize(kept);
  indices_.resize(kept);
  rows_ = rows;
  rope_->SetRows(sequences_, rows_);
}

}  // namespace switchyard::attention_worker
