#include "model/conversion/convert.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "base/version.h"
#include "kernels/quantized.h"
#include "model/conversion/container.h"
#include "model/conversion/conversion_plan.h"
#include "model/conversion/encode.h"
#include "model/conversion/target_directory.h"
#include "model/expert_blob.h"
#include "model/manifest.h"
#include "model/sha256.h"
#include "model/weight_names.h"

namespace switchyard::model {
namespace {

using kernels::DType;

// Of a tensor's encoded rows that are in memory at once.
constexpr int64_t kSlabBytes = 16 << 20;
// Experts between two reports of progress, for each thread.
constexpr int64_t kExpertsPerThread = 2;
constexpr int64_t kMaxCompanionBytes = 256 << 20;

std::string Sum(absl::Span<const uint8_t> bytes) {
  Sha256 hash;
  hash.Update(bytes);
  return hash.FinishHex();
}

absl::Status FirstError(const std::vector<absl::Status>& statuses) {
  for (const absl::Status& status : statuses) SY_RETURN_IF_ERROR(status);
  return absl::OkStatus();
}

class Conversion {
 public:
  explicit Conversion(const WriteConvertedOptions& options)
      : options_(options), source_(*options.source) {}

  absl::Status Run();

 private:
  // Writes the file and returns the checksums of its container's tensors.
  absl::StatusOr<std::vector<std::string>> WriteFile(const PlannedFile& file);
  absl::StatusOr<std::string> WriteTensor(const PlannedTensor& planned,
                                          int64_t offset, OutputFile* out);
  absl::Status WriteExperts(const PlannedFile& file, OutputFile* out,
                            std::vector<std::string>* checksums);
  absl::Status EncodeExpert(int layer, int expert, uint8_t* blob);
  absl::Status WriteManifest(
      const TargetDirectory& target,
      const std::vector<std::vector<std::string>>& checksums);
  std::string Key() const;
  void Report(int64_t bytes) {
    done_bytes_ += bytes;
    if (options_.progress) options_.progress(done_bytes_, plan_.total_bytes);
  }

  const WriteConvertedOptions& options_;
  const WeightSource& source_;
  ConversionPlan plan_;
  int64_t done_bytes_ = 0;
};

// Where everything lies follows from the plan's headers, what it holds from the
// source.
std::string Conversion::Key() const {
  Sha256 hash;
  hash.Update(absl::StrCat(source_.fingerprint(), " ",
                           DescribeFormats(options_.formats), "\n"));
  for (const PlannedFile& file : plan_.files) {
    hash.Update(absl::StrCat(file.name, "\n"));
    hash.Update(file.container.header);
  }
  return hash.FinishHex();
}

absl::Status Conversion::Run() {
  SY_ASSIGN_OR_RETURN(plan_, PlanConversion(source_, options_.formats));
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<TargetDirectory> target,
                      TargetDirectory::Open(options_.out_dir, Key()));
  std::vector<std::vector<std::string>> checksums(plan_.files.size());
  for (size_t i = 0; i < plan_.files.size(); ++i) {
    const PlannedFile& file = plan_.files[i];
    const std::vector<std::string>* const kept =
        target->Finished(file.name, file.container.file_bytes);
    if (kept == nullptr || kept->size() != file.container.tensors.size()) {
      continue;
    }
    checksums[i] = *kept;
    done_bytes_ += file.container.file_bytes;
  }
  SY_RETURN_IF_ERROR(target->CheckRoom(plan_.total_bytes - done_bytes_));
  Report(0);
  for (size_t i = 0; i < plan_.files.size(); ++i) {
    if (!checksums[i].empty()) continue;
    SY_ASSIGN_OR_RETURN(checksums[i], WriteFile(plan_.files[i]));
    SY_RETURN_IF_ERROR(target->Append(plan_.files[i].name, checksums[i]));
  }
  for (const CompanionFile& companion : options_.companions) {
    SY_RETURN_IF_ERROR(
        WriteWholeFile(target->PathOf(companion.name), companion.content));
  }
  SY_RETURN_IF_ERROR(SyncDirectory(options_.out_dir));
  SY_RETURN_IF_ERROR(WriteManifest(*target, checksums));
  return target->RemoveJournal();
}

absl::StatusOr<std::vector<std::string>> Conversion::WriteFile(
    const PlannedFile& file) {
  const ContainerPlan& container = file.container;
  SY_ASSIGN_OR_RETURN(
      const std::unique_ptr<OutputFile> out,
      OutputFile::Create(absl::StrCat(options_.out_dir, "/", file.name),
                         container.file_bytes));
  const std::string& header = container.header;
  SY_RETURN_IF_ERROR(out->Write(
      0, {reinterpret_cast<const uint8_t*>(header.data()), header.size()}));
  std::vector<std::string> checksums(container.tensors.size());
  const int64_t before = done_bytes_;
  if (file.layer >= 0) {
    SY_RETURN_IF_ERROR(WriteExperts(file, out.get(), &checksums));
  } else {
    for (size_t i = 0; i < checksums.size(); ++i) {
      SY_ASSIGN_OR_RETURN(checksums[i],
                          WriteTensor(plan_.tensors[i],
                                      container.tensors[i].offset, out.get()));
    }
  }
  SY_RETURN_IF_ERROR(out->Finish());
  Report(container.file_bytes - (done_bytes_ - before));  // header, paddings
  return checksums;
}

absl::StatusOr<std::string> Conversion::WriteTensor(
    const PlannedTensor& planned, int64_t offset, OutputFile* out) {
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<SourceTensor> tensor,
                      source_.Find(planned.name));
  const DType dtype = planned.dtype;
  const int64_t rows = tensor->rows();
  const int64_t panel_bytes =
      kernels::WeightBytes(dtype, kernels::kPanelRows, tensor->cols());
  const int64_t panels = kernels::PaddedRows(rows) / kernels::kPanelRows;
  const int64_t slab_panels =
      std::max<int64_t>(1, kSlabBytes / std::max<int64_t>(1, panel_bytes));
  std::vector<uint8_t> slab;
  std::vector<absl::Status> statuses;
  Sha256 hash;
  for (int64_t first = 0; first < panels; first += slab_panels) {
    const int64_t count = std::min(slab_panels, panels - first);
    const int64_t first_row = first * kernels::kPanelRows;
    const int64_t slab_rows =
        std::min(rows - first_row, count * kernels::kPanelRows);
    slab.resize(kernels::WeightBytes(dtype, slab_rows, tensor->cols()));
    statuses.assign(count, absl::OkStatus());
    options_.pool->ParallelFor(count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = i * kernels::kPanelRows;
        statuses[i] =
            EncodeRows(*tensor, planned.name, dtype, first_row + row,
                       std::min<int64_t>(kernels::kPanelRows, slab_rows - row),
                       slab.data() + i * panel_bytes);
      }
    });
    SY_RETURN_IF_ERROR(FirstError(statuses));
    hash.Update(slab);
    SY_RETURN_IF_ERROR(out->Write(offset, slab));
    tensor->Release(first_row, slab_rows);
    offset += static_cast<int64_t>(slab.size());
    Report(static_cast<int64_t>(slab.size()));
  }
  return hash.FinishHex();
}

absl::Status Conversion::EncodeExpert(int layer, int expert, uint8_t* blob) {
  const ModelConfig& config = source_.config();
  const DType dtype = plan_.expert_dtype;
  const ExpertBlobLayout layout(config, dtype);
  const ExpertNames names = SeparateExpertNames(config, layer, expert);
  SY_ASSIGN_OR_RETURN(const SourceExpert weights,
                      source_.FindExpert(layer, expert));
  const struct {
    const SourceTensor& tensor;
    const std::string& name;
    int64_t offset;
  } parts[] = {{*weights.gate_proj, names.gate_proj, 0},
               {*weights.up_proj, names.up_proj, layout.up_offset},
               {*weights.down_proj, names.down_proj, layout.down_offset}};
  for (const auto& part : parts) {
    SY_RETURN_IF_ERROR(EncodeRows(part.tensor, part.name, dtype, 0,
                                  part.tensor.rows(), blob + part.offset));
    part.tensor.Release(0, part.tensor.rows());
  }
  return absl::OkStatus();
}

absl::Status Conversion::WriteExperts(const PlannedFile& file, OutputFile* out,
                                      std::vector<std::string>* checksums) {
  const std::vector<ContainerTensor>& blobs = file.container.tensors;
  const int64_t num_experts = static_cast<int64_t>(blobs.size());
  const int64_t step = kExpertsPerThread * options_.pool->num_threads();
  std::vector<absl::Status> statuses;
  for (int64_t first = 0; first < num_experts; first += step) {
    const int64_t count = std::min(step, num_experts - first);
    statuses.assign(count, absl::OkStatus());
    options_.pool->ParallelFor(count, 1, [&](int64_t begin, int64_t end) {
      std::vector<uint8_t> blob;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t expert = first + i;
        blob.assign(blobs[expert].bytes, 0);
        statuses[i] =
            EncodeExpert(file.layer, static_cast<int>(expert), blob.data());
        if (!statuses[i].ok()) continue;
        (*checksums)[expert] = Sum(blob);
        statuses[i] = out->Write(blobs[expert].offset, blob);
      }
    });
    SY_RETURN_IF_ERROR(FirstError(statuses));
    Report(count * blobs[first].bytes);
  }
  return absl::OkStatus();
}

absl::Status Conversion::WriteManifest(
    const TargetDirectory& target,
    const std::vector<std::vector<std::string>>& checksums) {
  Manifest manifest;
  manifest.tool_version = kVersion;
  manifest.source_fingerprint = source_.fingerprint();
  manifest.source_dtype = source_.dtype_name();
  manifest.formats = options_.formats;
  manifest.expert_dtype = plan_.expert_dtype;
  for (size_t i = 0; i < plan_.files.size(); ++i) {
    const PlannedFile& file = plan_.files[i];
    if (file.layer >= 0) {
      manifest.expert_layers.push_back({file.layer, file.name, checksums[i]});
      continue;
    }
    for (size_t t = 0; t < plan_.tensors.size(); ++t) {
      const PlannedTensor& tensor = plan_.tensors[t];
      manifest.tensors.push_back({tensor.name, file.name, tensor.dtype,
                                  tensor.shape, checksums[i][t]});
    }
  }
  SY_RETURN_IF_ERROR(WriteWholeFile(target.PathOf(kManifestFile),
                                    SerializeManifest(manifest)));
  return SyncDirectory(options_.out_dir);
}

}  // namespace

absl::StatusOr<std::vector<CompanionFile>> ReadCompanionFiles(
    const std::string& directory) {
  static constexpr const char* kNames[] = {"config.json",
                                           "generation_config.json",
                                           "tokenizer.json",
                                           "tokenizer_config.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "chat_template.jinja",
                                           "chat_template.json",
                                           "LICENSE"};
  std::vector<CompanionFile> files;
  for (const char* name : kNames) {
    absl::StatusOr<std::string> content =
        ReadFile(absl::StrCat(directory, "/", name), kMaxCompanionBytes);
    if (absl::IsNotFound(content.status())) continue;
    SY_RETURN_IF_ERROR(content.status());
    files.push_back({name, *std::move(content)});
  }
  return files;
}

absl::Status WriteConvertedCheckpoint(const WriteConvertedOptions& options) {
  return Conversion(options).Run();
}

absl::Status ConvertCheckpoint(const ConvertOptions& options) {
  SY_ASSIGN_OR_RETURN(const std::unique_ptr<WeightSource> source,
                      OpenWeightSource(options.model_dir));
  WriteConvertedOptions write;
  write.source = source.get();
  write.out_dir = options.out_dir;
  write.formats = options.formats;
  write.pool = options.pool;
  write.progress = options.progress;
  SY_ASSIGN_OR_RETURN(write.companions, ReadCompanionFiles(options.model_dir));
  return WriteConvertedCheckpoint(write);
}

}  // namespace switchyard::model
