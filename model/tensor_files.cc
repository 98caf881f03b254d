#include "model/tensor_files.h"

#include <sys/stat.h>

#include <map>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "model/json_fields.h"

namespace switchyard::model {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
// 76 000 tensors at about 100 bytes each are 8 MB.
constexpr int64_t kMaxIndexBytes = 256 << 20;

absl::Status Annotate(const std::string& path, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(path, ": ", status.message()));
}

bool FileExists(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorFiles>> TensorFiles::Open(
    const std::string& directory) {
  auto files = absl::WrapUnique(new TensorFiles(directory));
  if (FileExists(absl::StrCat(directory, "/", kSingleFile))) {
    SY_RETURN_IF_ERROR(files->OpenSingleFile());
  } else if (FileExists(absl::StrCat(directory, "/", kIndexFile))) {
    SY_RETURN_IF_ERROR(files->OpenShards());
  } else {
    return absl::NotFoundError(
        absl::StrCat(directory, ": there is neither ", kSingleFile, " nor ",
                     kIndexFile, "; weights are read from safetensors files"));
  }
  return files;
}

const SafetensorsFile* TensorFiles::FileOf(absl::string_view tensor) const {
  const auto it = tensors_.find(tensor);
  return it == tensors_.end() ? nullptr : it->second;
}

absl::Status TensorFiles::OpenSingleFile() {
  SY_ASSIGN_OR_RETURN(
      std::unique_ptr<SafetensorsFile> file,
      SafetensorsFile::Open(absl::StrCat(directory_, "/", kSingleFile)));
  for (const auto& [name, tensor] : file->tensors()) {
    tensors_.emplace(name, file.get());
  }
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status TensorFiles::OpenShards() {
  const std::string index_path = absl::StrCat(directory_, "/", kIndexFile);
  SY_ASSIGN_OR_RETURN(const std::string text,
                      ReadFile(index_path, kMaxIndexBytes));
  absl::StatusOr<Json> index =
      ParseJson(text, {.max_bytes = kMaxIndexBytes, .max_depth = 8});
  if (!index.ok()) return Annotate(index_path, index.status());
  const auto bad_index = [&](absl::string_view what) {
    return Annotate(index_path, absl::InvalidArgumentError(what));
  };
  if (!index->is_object() || !index->contains("weight_map") ||
      !(*index)["weight_map"].is_object()) {
    return bad_index("there is no weight_map of tensor name to file name");
  }
  std::map<std::string, std::vector<std::string>> tensors_of_file;
  for (const auto& [name, file] : (*index)["weight_map"].items()) {
    if (!file.is_string()) {
      return bad_index(absl::StrCat("the file of ", name, " is ",
                                    DescribeJson(file), ", not a name"));
    }
    const std::string file_name = file.get<std::string>();
    // Only files beside the index: an index is data, not a list of paths.
    if (file_name.empty() || absl::StrContains(file_name, '/') ||
        file_name == "." || file_name == "..") {
      return bad_index(absl::StrCat("the file of ", name, " is \"", file_name,
                                    "\"; it must be a name without folders"));
    }
    tensors_of_file[file_name].push_back(name);
  }
  if (tensors_of_file.empty()) return bad_index("weight_map is empty");
  for (const auto& [file, tensors] : tensors_of_file) {
    const absl::Status status = OpenShard(file, tensors);
    if (absl::IsNotFound(status)) {
      return absl::NotFoundError(absl::StrCat(
          status.message(), " (", kIndexFile, " says that it holds ",
          tensors.front(), tensors.size() > 1 ? " and others" : "",
          "; fetch it, or the whole checkpoint, again)"));
    }
    SY_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

absl::Status TensorFiles::OpenShard(const std::string& file_name,
                                    const std::vector<std::string>& tensors) {
  SY_ASSIGN_OR_RETURN(
      std::unique_ptr<SafetensorsFile> file,
      SafetensorsFile::Open(absl::StrCat(directory_, "/", file_name)));
  for (const std::string& name : tensors) {
    const auto it = file->tensors().find(name);
    if (it == file->tensors().end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          file->path(), ": there is no tensor ", name, ", though ", kIndexFile,
          " says so: shards and index are of different checkpoints"));
    }
    tensors_.emplace(it->first, file.get());
  }
  num_unindexed_ +=
      static_cast<int64_t>(file->tensors().size() - tensors.size());
  files_.push_back(std::move(file));
  return absl::OkStatus();
}

}  // namespace switchyard::model
