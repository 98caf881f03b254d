#include "model/conversion/verify.h"

#include <sys/stat.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "model/checkpoint.h"
#include "model/checksums.h"
#include "model/manifest.h"
#include "model/weight_names.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

using kernels::WeightView;

// Bytes between two reports of progress.
constexpr int64_t kStepBytes = 256 << 20;

struct Piece {
  std::function<absl::Status()> verify;
  std::vector<WeightView> views;

  int64_t bytes() const {
    int64_t sum = 0;
    for (const WeightView& view : views) sum += WeightBytes(view);
    return sum;
  }
};

absl::StatusOr<std::vector<Piece>> PiecesOf(const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  std::vector<Piece> pieces;
  const auto add = [&](const std::string& name) -> absl::Status {
    SY_ASSIGN_OR_RETURN(const WeightView view, checkpoint.Find(name));
    pieces.push_back(
        {[&checkpoint, name] { return checkpoint.VerifyTensor(name); },
         {view}});
    return absl::OkStatus();
  };
  SY_RETURN_IF_ERROR(ForEachNonExpertWeight(
      config, checkpoint.has_mtp(),
      [&](const std::string& name, absl::Span<const int64_t>) {
        return add(name);
      }));
  if (config.tie_word_embeddings) {
    SY_ASSIGN_OR_RETURN(const WeightView head, checkpoint.Find(kLmHeadName));
    SY_ASSIGN_OR_RETURN(const WeightView embedding,
                        checkpoint.Find(kEmbeddingName));
    if (head.data != embedding.data) SY_RETURN_IF_ERROR(add(kLmHeadName));
  }
  for (int layer = 0; layer < checkpoint.num_expert_layers(); ++layer) {
    if (!checkpoint.LayerHasExperts(layer)) continue;
    for (int e = 0; e < config.num_experts; ++e) {
      SY_ASSIGN_OR_RETURN(const ExpertWeights expert,
                          checkpoint.FindExpert(layer, e));
      pieces.push_back({[&checkpoint, layer, e] {
                          return checkpoint.VerifyExpert(layer, e);
                        },
                        {expert.gate_proj, expert.up_proj, expert.down_proj}});
    }
  }
  return pieces;
}

absl::StatusOr<VerifyReport> VerifyConverted(
    const std::string& directory, ComputePool* pool,
    const std::function<void(int64_t done, int64_t total)>& progress) {
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                      Checkpoint::Open(directory));
  SY_ASSIGN_OR_RETURN(const std::vector<Piece> pieces, PiecesOf(*checkpoint));
  VerifyReport report;
  int64_t total = 0;
  for (const Piece& piece : pieces) total += piece.bytes();
  size_t first = 0;
  while (first < pieces.size()) {
    size_t end = first;
    int64_t bytes = 0;
    do bytes += pieces[end++].bytes();
    while (end < pieces.size() && bytes < kStepBytes);
    std::vector<absl::Status> statuses(end - first);
    pool->ParallelFor(static_cast<int64_t>(end - first), 1,
                      [&](int64_t begin, int64_t stop) {
                        for (int64_t i = begin; i < stop; ++i) {
                          const Piece& piece = pieces[first + i];
                          statuses[i] = piece.verify();
                          for (const WeightView& view : piece.views) {
                            ReleaseMappedPages(view.data, WeightBytes(view));
                          }
                        }
                      });
    for (const absl::Status& status : statuses) {
      if (!status.ok()) report.damaged.emplace_back(status.message());
    }
    first = end;
    report.bytes += bytes;
    if (progress) progress(report.bytes, total);
  }
  report.num_checked = static_cast<int64_t>(pieces.size());
  return report;
}

}  // namespace

absl::StatusOr<VerifyReport> VerifyCheckpoint(
    const std::string& directory, ComputePool* pool,
    const std::function<void(int64_t done, int64_t total)>& progress) {
  struct stat info;
  const std::string manifest = absl::StrCat(directory, "/", kManifestFile);
  if (stat(manifest.c_str(), &info) == 0) {
    return VerifyConverted(directory, pool, progress);
  }
  VerifyReport report;
  const absl::Status status =
      VerifyChecksums(directory, [&](int64_t done, int64_t total) {
        report.bytes = done;
        if (progress) progress(done, total);
      });
  if (absl::IsNotFound(status) && report.bytes == 0) {
    return absl::NotFoundError(
        absl::StrCat(status.message(), " (", directory,
                     " is not a converted model, so it is "
                     "checked against ",
                     kChecksumsFile,
                     "; `sha256sum *.safetensors > SHA256SUMS` "
                     "makes one of files that are known to be good)"));
  }
  if (absl::IsDataLoss(status)) {
    report.damaged.emplace_back(status.message());
  } else {
    SY_RETURN_IF_ERROR(status);
  }
  const absl::StatusOr<std::string> sums =
      ReadFile(absl::StrCat(directory, "/", kChecksumsFile), kMaxManifestBytes);
  SY_RETURN_IF_ERROR(sums.status());
  SY_ASSIGN_OR_RETURN(const auto listed, ParseChecksums(*sums));
  report.num_checked = static_cast<int64_t>(listed.size());
  return report;
}

}  // namespace switchyard::model
