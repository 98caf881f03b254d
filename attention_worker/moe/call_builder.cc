#include "attention_worker/moe/call_builder.h"

#include <algorithm>
#include <cstddef>

#include "absl/time/time.h"

namespace switchyard::attention_worker {

void CallBuilder::Begin(const DispatchRequest* request) {
  request_ = request;
  slot_of_row_.resize(static_cast<size_t>(request->num_rows), -1);
}

ExpertCall CallBuilder::Build(absl::Span<const int64_t> pairs) {
  const DispatchRequest& request = *request_;
  const auto row_of = [&request](int64_t pair) {
    return pair / request.experts_per_row;
  };
  ExpertCall call;
  call.layer = request.layer;
  call.hidden_size = request.hidden_size;
  call.rows = request.rows;
  call.quantized = request.quantized;
  call.rounded = request.rounded;
  call.deadline = absl::InfinitePast();
  // Each distinct row once, ascending, so that runs are ascending too.
  rows_.clear();
  for (const int64_t pair : pairs) {
    const int64_t row = row_of(pair);
    int32_t& slot = slot_of_row_[row];
    if (slot >= 0) continue;
    slot = 0;
    rows_.push_back(static_cast<int32_t>(row));
    call.deadline = std::max(call.deadline,
                             request.deadlines[request.sequence_of_row[row]]);
  }
  std::sort(rows_.begin(), rows_.end());
  for (size_t i = 0; i < rows_.size(); ++i) {
    slot_of_row_[rows_[i]] = static_cast<int32_t>(i);
  }
  size_t num_runs = 0;
  int last_expert = -1;
  for (const int64_t pair : pairs) {
    const int expert = request.experts[pair];
    if (expert != last_expert) {
      last_expert = expert;
      if (num_runs == runs_.size()) runs_.emplace_back();
      runs_[num_runs].expert = expert;
      runs_[num_runs].rows.clear();
      ++num_runs;
    }
    runs_[num_runs - 1].rows.push_back(slot_of_row_[row_of(pair)]);
  }
  for (const int32_t row : rows_) slot_of_row_[row] = -1;
  call.num_rows = static_cast<int64_t>(rows_.size());
  call.source_rows = rows_;
  call.runs = absl::MakeConstSpan(runs_).first(num_runs);
  return call;
}

}  // namespace switchyard::attention_worker
