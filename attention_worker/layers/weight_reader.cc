#include "attention_worker/layers/weight_reader.h"

#include <algorithm>
#include <atomic>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/weight_values.h"

namespace switchyard::attention_worker {
namespace {

// Rows are read in pieces of about this many bytes.
constexpr int64_t kPieceBytes = int64_t{1} << 20;

// Rows [begin, end) of a view, which a quantised one has in whole panels only.
kernels::WeightView Rows(const kernels::WeightView& view, int64_t begin,
                         int64_t end) {
  kernels::WeightView rows = view;
  rows.data = static_cast<const char*>(view.data) +
              kernels::WeightBytes(view.dtype, begin, view.cols);
  rows.rows = end - begin;
  return rows;
}

}  // namespace

absl::StatusOr<kernels::WeightView> WeightReader::Matrix(absl::string_view name,
                                                         int64_t rows,
                                                         int64_t cols) {
  SY_ASSIGN_OR_RETURN(const kernels::WeightView view, checkpoint_->Find(name));
  if (view.rows != rows || view.cols != cols) {
    return absl::InvalidArgumentError(absl::StrCat(
        checkpoint_->directory(), ": tensor ", name, " is [", view.rows, ", ",
        view.cols, "], config.json asks for [", rows, ", ", cols, "]"));
  }
  tensors_.emplace_back(std::string(name), view);
  return view;
}

absl::StatusOr<std::vector<float>> WeightReader::Vector(absl::string_view name,
                                                        int64_t size) {
  SY_ASSIGN_OR_RETURN(const kernels::WeightView view, checkpoint_->Find(name));
  if (view.rows * view.cols != size) {
    return absl::InvalidArgumentError(absl::StrCat(
        checkpoint_->directory(), ": tensor ", name, " has ",
        view.rows * view.cols, " values, config.json asks for ", size));
  }
  tensors_.emplace_back(std::string(name), view);
  return checkpoint_->FindFloats(name);
}

absl::Status WeightReader::ReadAll(
    ComputePool* pool,
    const std::function<void(int64_t done, int64_t total)>& progress) const {
  int64_t total = 0;
  for (const auto& [name, view] : tensors_) total += model::WeightBytes(view);
  int64_t done = 0;
  if (progress) progress(0, total);
  for (const auto& [name, view] : tensors_) {
    const int64_t bytes = model::WeightBytes(view);
    const int64_t rows_per_unit =
        IsQuantized(view.dtype) ? kernels::kPanelRows : 1;
    const int64_t units = (view.rows + rows_per_unit - 1) / rows_per_unit;
    const int64_t units_per_piece =
        std::max<int64_t>(1, kPieceBytes / std::max<int64_t>(1, bytes / units));
    std::atomic<int64_t> bad{0};
    pool->ParallelFor(units, units_per_piece, [&](int64_t begin, int64_t end) {
      bad +=
          model::CountNonFinite(Rows(view, begin * rows_per_unit,
                                     std::min(end * rows_per_unit, view.rows)));
    });
    if (bad != 0) {
      return absl::DataLossError(absl::StrCat(
          checkpoint_->directory(), ": tensor ", name, " holds ", bad.load(),
          " values that are NaN or infinite, of ", view.rows * view.cols,
          "; the file is damaged: fetch it again"));
    }
    done += bytes;
    if (progress) progress(done, total);
  }
  return absl::OkStatus();
}

}  // namespace switchyard::attention_worker
