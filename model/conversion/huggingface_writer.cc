#include "model/conversion/huggingface_writer.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/conversion/container.h"
#include "model/conversion/encode.h"
#include "model/conversion/target_directory.h"
#include "model/sha256.h"
#include "model/weight_names.h"

namespace switchyard::model {
namespace {

using kernels::DType;

constexpr char kBf16[] = "BF16";
constexpr int64_t kBf16Bytes = 2;
constexpr char kIndexFile[] = "model.safetensors.index.json";
// Of one task.
constexpr int64_t kPieceBytes = 4 << 20;
constexpr int64_t kPiecesPerThread = 8;

// Where a tensor's values come from.
struct Origin {
  int layer = -1;  // -1: by its name; else an expert's
  int expert = 0;
  int part = 0;  // 0 gate_proj, 1 up_proj, 2 down_proj
};

struct Shard {
  std::string name;
  std::vector<Origin> origins;  // as container.tensors
  ContainerPlan container;
};

class HuggingFaceWriter {
 public:
  explicit HuggingFaceWriter(const WriteHuggingFaceOptions& options)
      : options_(options), source_(*options.source) {}

  absl::Status Run();

 private:
  // Rows of a tensor that one task writes.
  struct Piece {
    const SourceTensor* tensor;
    const std::string* name;
    int64_t row;
    int64_t rows;
    int64_t offset;  // in the file
  };

  void PlanShards();
  absl::Status WriteShard(const Shard& shard);
  absl::Status WritePieces(const std::vector<Piece>& pieces, OutputFile* out);
  absl::StatusOr<std::unique_ptr<SourceTensor>> Find(
      const std::string& name, const Origin& origin) const;
  std::string Index() const;
  std::string Key() const;
  void Report(int64_t bytes) {
    done_bytes_ += bytes;
    if (options_.progress) options_.progress(done_bytes_, total_bytes_);
  }

  const WriteHuggingFaceOptions& options_;
  const WeightSource& source_;
  std::vector<Shard> shards_;
  int64_t total_bytes_ = 0;
  int64_t done_bytes_ = 0;
};

void HuggingFaceWriter::PlanShards() {
  const ModelConfig& config = source_.config();
  std::vector<std::vector<ContainerTensor>> tensors;
  int64_t shard_bytes =
      options_.max_shard_bytes;  // so that the first opens one
  const auto add = [&](const std::string& name, absl::Span<const int64_t> shape,
                       const Origin& origin) {
    int64_t bytes = kBf16Bytes;
    for (const int64_t size : shape) bytes *= size;
    if (shard_bytes + bytes > options_.max_shard_bytes) {
      shards_.emplace_back();
      tensors.emplace_back();
      shard_bytes = 0;
    }
    shard_bytes += bytes;
    shards_.back().origins.push_back(origin);
    tensors.back().push_back(
        {name, kBf16, {shape.begin(), shape.end()}, bytes});
  };
  // Visitors that never fail.
  (void)ForEachNonExpertWeight(
      config, source_.has_mtp(),
      [&](const std::string& name, absl::Span<const int64_t> shape) {
        add(name, shape, {});
        return absl::OkStatus();
      });
  const int layers = config.num_hidden_layers;
  for (int layer = 0; layer < layers + (source_.has_mtp() ? 1 : 0); ++layer) {
    if (layer < layers && !config.is_moe[layer]) continue;
    int visited = 0;
    (void)ForEachExpertWeight(
        config, layer, ExpertForm::kSeparate,
        [&](const std::string& name, absl::Span<const int64_t> shape) {
          add(name, shape, {layer, visited / 3, visited % 3});
          ++visited;
          return absl::OkStatus();
        });
  }
  for (size_t i = 0; i < shards_.size(); ++i) {
    shards_[i].name = absl::StrFormat("model-%05d-of-%05d.safetensors", i + 1,
                                      shards_.size());
    // Without the paddings that another reader would wonder about.
    shards_[i].container =
        PlanContainer(std::move(tensors[i]), /*tensor_alignment=*/kBf16Bytes);
    total_bytes_ += shards_[i].container.file_bytes;
  }
}

std::string HuggingFaceWriter::Key() const {
  Sha256 hash;
  hash.Update(absl::StrCat("huggingface ", source_.fingerprint(), "\n"));
  for (const Shard& shard : shards_) hash.Update(shard.container.header);
  return hash.FinishHex();
}

absl::Status HuggingFaceWriter::Run() {
  PlanShards();
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<TargetDirectory> target,
                      TargetDirectory::Open(options_.out_dir, Key()));
  std::vector<const Shard*> missing;
  for (const Shard& shard : shards_) {
    const int64_t bytes = shard.container.file_bytes;
    if (target->Finished(shard.name, bytes) != nullptr) {
      done_bytes_ += bytes;
    } else {
      missing.push_back(&shard);
    }
  }
  SY_RETURN_IF_ERROR(target->CheckRoom(total_bytes_ - done_bytes_));
  Report(0);
  for (const Shard* shard : missing) {
    SY_RETURN_IF_ERROR(WriteShard(*shard));
    SY_RETURN_IF_ERROR(target->Append(shard->name, {}));
  }
  SY_RETURN_IF_ERROR(WriteWholeFile(target->PathOf(kIndexFile), Index()));
  for (const CompanionFile& companion : options_.companions) {
    SY_RETURN_IF_ERROR(
        WriteWholeFile(target->PathOf(companion.name), companion.content));
  }
  SY_RETURN_IF_ERROR(SyncDirectory(options_.out_dir));
  return target->RemoveJournal();
}

absl::StatusOr<std::unique_ptr<SourceTensor>> HuggingFaceWriter::Find(
    const std::string& name, const Origin& origin) const {
  if (origin.layer < 0) return source_.Find(name);
  SY_ASSIGN_OR_RETURN(SourceExpert expert,
                      source_.FindExpert(origin.layer, origin.expert));
  return origin.part == 0   ? std::move(expert.gate_proj)
         : origin.part == 1 ? std::move(expert.up_proj)
                            : std::move(expert.down_proj);
}

absl::Status HuggingFaceWriter::WriteShard(const Shard& shard) {
  const ContainerPlan& container = shard.container;
  SY_ASSIGN_OR_RETURN(
      const std::unique_ptr<OutputFile> out,
      OutputFile::Create(absl::StrCat(options_.out_dir, "/", shard.name),
                         container.file_bytes));
  const std::string& header = container.header;
  SY_RETURN_IF_ERROR(out->Write(
      0, {reinterpret_cast<const uint8_t*>(header.data()), header.size()}));
  std::vector<std::unique_ptr<SourceTensor>> tensors;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < container.tensors.size(); ++i) {
    const ContainerTensor& planned = container.tensors[i];
    SY_ASSIGN_OR_RETURN(std::unique_ptr<SourceTensor> tensor,
                        Find(planned.name, shard.origins[i]));
    const int64_t row_bytes = tensor->cols() * kBf16Bytes;
    const int64_t step = std::max<int64_t>(1, kPieceBytes / row_bytes);
    for (int64_t row = 0; row < tensor->rows(); row += step) {
      pieces.push_back({tensor.get(), &planned.name, row,
                        std::min(step, tensor->rows() - row),
                        planned.offset + row * row_bytes});
    }
    tensors.push_back(std::move(tensor));
  }
  SY_RETURN_IF_ERROR(WritePieces(pieces, out.get()));
  Report(static_cast<int64_t>(header.size()));
  return out->Finish();
}

absl::Status HuggingFaceWriter::WritePieces(const std::vector<Piece>& pieces,
                                            OutputFile* out) {
  const size_t step = kPiecesPerThread * options_.pool->num_threads();
  std::vector<absl::Status> statuses;
  for (size_t first = 0; first < pieces.size(); first += step) {
    const size_t count = std::min(step, pieces.size() - first);
    statuses.assign(count, absl::OkStatus());
    options_.pool->ParallelFor(
        static_cast<int64_t>(count), 1, [&](int64_t begin, int64_t end) {
          std::vector<uint8_t> bytes;
          for (int64_t i = begin; i < end; ++i) {
            const Piece& piece = pieces[first + i];
            bytes.resize(piece.rows * piece.tensor->cols() * kBf16Bytes);
            statuses[i] = EncodeRows(*piece.tensor, *piece.name, DType::kBF16,
                                     piece.row, piece.rows, bytes.data());
            if (!statuses[i].ok()) continue;
            statuses[i] = out->Write(piece.offset, bytes);
            piece.tensor->Release(piece.row, piece.rows);
          }
        });
    int64_t bytes = 0;
    for (size_t i = 0; i < count; ++i) {
      SY_RETURN_IF_ERROR(statuses[i]);
      const Piece& piece = pieces[first + i];
      bytes += piece.rows * piece.tensor->cols() * kBf16Bytes;
    }
    Report(bytes);
  }
  return absl::OkStatus();
}

std::string HuggingFaceWriter::Index() const {
  // Without the search for a key that is never there, 75 000 times.
  Json::object_t map;
  int64_t bytes = 0;
  for (const Shard& shard : shards_) {
    for (const ContainerTensor& tensor : shard.container.tensors) {
      map.emplace_back(tensor.name, shard.name);
      bytes += tensor.bytes;
    }
  }
  return DumpJson(
      {{"metadata", {{"total_size", bytes}}}, {"weight_map", std::move(map)}});
}

}  // namespace

absl::Status WriteHuggingFaceCheckpoint(
    const WriteHuggingFaceOptions& options) {
  return HuggingFaceWriter(options).Run();
}

}  // namespace switchyard::model
