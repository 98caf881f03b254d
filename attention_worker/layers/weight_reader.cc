#include "attention_worker/layers/weight_reader.h"

#include <algorithm>
#include <atomic>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/weight_names.h"
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

// For all matrices that layers may ask for: it is only addresses.
absl::Status WeightReader::MakeRoom() {
  int64_t bytes = 0;
  SY_RETURN_IF_ERROR(model::ForEachNonExpertWeight(
      config(), checkpoint_->has_mtp(),
      [&](const std::string& name, absl::Span<const int64_t>) -> absl::Status {
        SY_ASSIGN_OR_RETURN(const kernels::WeightView view,
                            checkpoint_->Find(name));
        bytes += model::WeightCopies::RoomFor(model::WeightBytes(view));
        return absl::OkStatus();
      }));
  SY_ASSIGN_OR_RETURN(copies_, model::WeightCopies::Create(checkpoint_, bytes));
  return absl::OkStatus();
}

absl::StatusOr<kernels::WeightView> WeightReader::Matrix(absl::string_view name,
                                                         int64_t rows,
                                                         int64_t cols) {
  SY_ASSIGN_OR_RETURN(const kernels::WeightView view, checkpoint_->Find(name));
  if (view.rows != rows || view.cols != cols) {
    return absl::InvalidArgumentError(absl::StrCat(
        checkpoint_->directory(), ": tensor ", name, " is [", view.rows, ", ",
        view.cols, "], config.json asks for [", rows, ", ", cols, "]"));
  }
  if (copy_ && copies_ == nullptr) SY_RETURN_IF_ERROR(MakeRoom());
  tensors_.push_back(
      {std::string(name), view, copy_ ? copies_->Place(view) : view});
  return tensors_.back().place;
}

absl::StatusOr<std::vector<float>> WeightReader::Vector(absl::string_view name,
                                                        int64_t size) {
  SY_ASSIGN_OR_RETURN(const kernels::WeightView view, checkpoint_->Find(name));
  if (view.rows * view.cols != size) {
    return absl::InvalidArgumentError(absl::StrCat(
        checkpoint_->directory(), ": tensor ", name, " has ",
        view.rows * view.cols, " values, config.json asks for ", size));
  }
  tensors_.push_back({std::string(name), view, view});
  return checkpoint_->FindFloats(name);
}

absl::Status WeightReader::ReadTensor(const Tensor& tensor,
                                      ComputePool* pool) const {
  const kernels::WeightView& source = tensor.source;
  const bool copied = tensor.place.data != source.data;
  const int64_t bytes = model::WeightBytes(source);
  const int64_t rows_per_unit =
      IsQuantized(source.dtype) ? kernels::kPanelRows : 1;
  const int64_t units = (source.rows + rows_per_unit - 1) / rows_per_unit;
  const int64_t units_per_piece = std::max<int64_t>(
      1,
      kPieceBytes / std::max<int64_t>(1, bytes / std::max<int64_t>(1, units)));
  std::atomic<int64_t> bad{0};
  pool->ParallelFor(units, units_per_piece, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * rows_per_unit;
    const int64_t last = std::min(end * rows_per_unit, source.rows);
    const kernels::WeightView rows = Rows(tensor.place, first, last);
    if (copied) copies_->Copy(Rows(source, first, last), rows);
    bad += model::CountNonFinite(rows);
  });
  if (bad == 0) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      checkpoint_->directory(), ": tensor ", tensor.name, " holds ", bad.load(),
      " values that are NaN or infinite, of ", source.rows * source.cols,
      "; the file is damaged: fetch it again"));
}

absl::Status WeightReader::ReadAll(
    ComputePool* pool,
    const std::function<void(int64_t done, int64_t total)>& progress) const {
  int64_t total = 0;
  for (const Tensor& tensor : tensors_) {
    total += model::WeightBytes(tensor.source);
  }
  int64_t done = 0;
  if (progress) progress(0, total);
  if (copies_ != nullptr) SY_RETURN_IF_ERROR(copies_->Allocate(pool));
  if (checkpoint_->has_checksums()) {
    std::vector<absl::Status> statuses(tensors_.size());
    pool->ParallelFor(static_cast<int64_t>(tensors_.size()), 1,
                      [&](int64_t begin, int64_t end) {
                        for (int64_t i = begin; i < end; ++i) {
                          statuses[i] =
                              checkpoint_->VerifyTensor(tensors_[i].name);
                        }
                      });
    for (const absl::Status& status : statuses) SY_RETURN_IF_ERROR(status);
  }
  for (const Tensor& tensor : tensors_) {
    SY_RETURN_IF_ERROR(ReadTensor(tensor, pool));
    done += model::WeightBytes(tensor.source);
    if (progress) progress(done, total);
  }
  if (copies_ != nullptr) copies_->LogPages("layers");
  return absl::OkStatus();
}

}  // namespace switchyard::attention_worker
