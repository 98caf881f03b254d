#include "model/manifest.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/json_fields.h"
#include "model/sha256.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

using kernels::DType;

constexpr char kFormat[] = "switchyard checkpoint";
constexpr int kVersion = 1;
constexpr size_t kHexDigits = 64;
constexpr size_t kMaxRank = 8;
constexpr int64_t kMaxDimension = int64_t{1} << 40;
constexpr int kMaxLayer = 1 << 20;
constexpr size_t kMaxLabelBytes = 256;

bool IsDigest(absl::string_view text) {
  return text.size() == kHexDigits &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

absl::Status Wrong(absl::string_view where, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(where, " ", what));
}

// The fields of one object; the first error is kept in *status.
class Reader {
 public:
  Reader(const Json& object, std::string where)
      : fields_(object, where), where_(std::move(where)) {}

  std::string Text(absl::string_view key) {
    std::string text;
    Require(key);
    fields_.ReadString(key, &text);
    if (text.size() > kMaxLabelBytes) fields_.Fail(key, "is too long");
    return text;
  }
  std::string Digest(absl::string_view key) {
    std::string text = Text(key);
    if (!IsDigest(text)) {
      fields_.Fail(key, "is not 64 lower-case hexadecimal digits");
    }
    return text;
  }
  std::string File(absl::string_view key) {
    std::string text = Text(key);
    if (!IsPlainFileName(text)) {
      fields_.Fail(key, absl::StrCat("is \"", text,
                                     "\"; it must be a name without folders"));
    }
    return text;
  }
  DType Type(absl::string_view key) {
    const std::string text = Text(key);
    for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32,
                              DType::kQ8, DType::kQ4, DType::kBF16Dot}) {
      if (text == DTypeName(dtype)) return dtype;
    }
    fields_.Fail(
        key, absl::StrCat("is \"", text,
                          "\"; BF16, BF16DOT, F16, F32, Q8 and Q4 are read"));
    return DType::kF32;
  }
  WeightFormat Format(absl::string_view key) {
    const absl::StatusOr<WeightFormat> format = ParseWeightFormat(Text(key));
    if (format.ok()) return *format;
    fields_.Fail(key, format.status().message());
    return WeightFormat::kSource;
  }
  int Int(absl::string_view key, int max) {
    int value = 0;
    Require(key);
    fields_.ReadInt(key, 0, max, &value);
    return value;
  }
  std::vector<int64_t> Shape(absl::string_view key) {
    std::vector<int64_t> shape;
    Require(key);
    fields_.ReadIntOrList(key, 0, kMaxDimension, &shape);
    if (shape.empty() || shape.size() > kMaxRank) {
      fields_.Fail(key, "is no list of dimensions");
    }
    return shape;
  }
  // Null after an error.
  const Json* Object(absl::string_view key) {
    return Typed(key, &Json::is_object, "is not an object");
  }
  const Json* Array(absl::string_view key) {
    return Typed(key, &Json::is_array, "is not a list");
  }
  void Fail(absl::string_view key, absl::string_view what) {
    fields_.Fail(key, what);
  }
  const absl::Status& status() const { return fields_.status(); }

 private:
  void Require(absl::string_view key) {
    if (!fields_.Has(key)) fields_.Fail(key, "is missing");
  }
  const Json* Typed(absl::string_view key, bool (Json::*is)() const noexcept,
                    absl::string_view otherwise) {
    Require(key);
    const Json* found = fields_.Find(key);
    if (found == nullptr) return nullptr;
    if (!(found->*is)()) {
      fields_.Fail(key, otherwise);
      return nullptr;
    }
    return found;
  }

  JsonFields fields_;
  const std::string where_;
};

absl::Status ParseTensors(const Json& list, Manifest* manifest) {
  absl::flat_hash_set<std::string> names;
  for (const Json& entry : list) {
    const std::string where =
        absl::StrCat("tensors[", manifest->tensors.size(), "]");
    if (!entry.is_object()) return Wrong(where, "is not an object");
    Reader reader(entry, absl::StrCat(where, "."));
    Manifest::Tensor tensor;
    tensor.name = reader.Text("name");
    tensor.file = reader.File("file");
    tensor.dtype = reader.Type("dtype");
    tensor.shape = reader.Shape("shape");
    tensor.sha256 = reader.Digest("sha256");
    SY_RETURN_IF_ERROR(reader.status());
    if (!names.insert(tensor.name).second) {
      return Wrong(where,
                   absl::StrCat("is ", tensor.name, ", which is there twice"));
    }
    manifest->tensors.push_back(std::move(tensor));
  }
  return absl::OkStatus();
}

absl::Status ParseExpertLayer(const Json& entry, const std::string& where,
                              Manifest* manifest) {
  if (!entry.is_object()) return Wrong(where, "is not an object");
  Reader reader(entry, absl::StrCat(where, "."));
  Manifest::ExpertLayer layer;
  layer.layer = reader.Int("layer", kMaxLayer);
  layer.file = reader.File("file");
  const Json* const sums = reader.Array("sha256");
  SY_RETURN_IF_ERROR(reader.status());
  for (const Json& sum : *sums) {
    layer.sha256.push_back(sum.is_string() ? sum.get<std::string>() : "");
    if (!IsDigest(layer.sha256.back())) {
      return Wrong(where,
                   absl::StrCat(".sha256[", layer.sha256.size() - 1,
                                "] is not 64 lower-case hexadecimal digits"));
    }
  }
  if (!manifest->expert_layers.empty() &&
      layer.layer <= manifest->expert_layers.back().layer) {
    return Wrong(where, ".layer is not above the one before it");
  }
  manifest->expert_layers.push_back(std::move(layer));
  return absl::OkStatus();
}

absl::Status ParseExperts(const Json& object, Manifest* manifest) {
  Reader reader(object, "experts.");
  manifest->expert_dtype = reader.Type("dtype");
  const Json* const layers = reader.Array("layers");
  SY_RETURN_IF_ERROR(reader.status());
  for (const Json& entry : *layers) {
    SY_RETURN_IF_ERROR(ParseExpertLayer(
        entry,
        absl::StrCat("experts.layers[", manifest->expert_layers.size(), "]"),
        manifest));
  }
  return absl::OkStatus();
}

absl::Status CheckVersion(Reader* reader) {
  const std::string format = reader->Text("format");
  const int version = reader->Int("version", std::numeric_limits<int>::max());
  SY_RETURN_IF_ERROR(reader->status());
  if (format == kFormat && version == kVersion) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("format is \"", format, "\", version ", version,
                   "; this program reads \"", kFormat, "\", version ", kVersion,
                   ": convert the model again"));
}

}  // namespace

bool IsPlainFileName(absl::string_view file_name) {
  return !file_name.empty() && file_name != "." && file_name != ".." &&
         file_name.find('/') == absl::string_view::npos &&
         file_name.find('\0') == absl::string_view::npos;
}

std::string ManifestDigest(const Manifest& manifest) {
  Sha256 hash;
  hash.Update(absl::StrCat(
      kFormat, " ", kVersion, "\nsource ", manifest.source_fingerprint, " ",
      manifest.source_dtype, "\n", DescribeFormats(manifest.formats), "\n"));
  for (const Manifest::Tensor& tensor : manifest.tensors) {
    hash.Update(absl::StrCat(tensor.name, " ", DTypeName(tensor.dtype), " ",
                             absl::StrJoin(tensor.shape, "x"), " ",
                             tensor.sha256, "\n"));
  }
  hash.Update(absl::StrCat("experts ", DTypeName(manifest.expert_dtype), "\n"));
  for (const Manifest::ExpertLayer& layer : manifest.expert_layers) {
    hash.Update(
        absl::StrCat(layer.layer, " ", absl::StrJoin(layer.sha256, " "), "\n"));
  }
  return hash.FinishHex();
}

std::string SerializeManifest(const Manifest& manifest) {
  Json tensors = Json::array();
  for (const Manifest::Tensor& tensor : manifest.tensors) {
    tensors.push_back({{"name", tensor.name},
                       {"file", tensor.file},
                       {"dtype", std::string(DTypeName(tensor.dtype))},
                       {"shape", tensor.shape},
                       {"sha256", tensor.sha256}});
  }
  Json layers = Json::array();
  for (const Manifest::ExpertLayer& layer : manifest.expert_layers) {
    layers.push_back({{"layer", layer.layer},
                      {"file", layer.file},
                      {"sha256", layer.sha256}});
  }
  const auto format = [](WeightFormat value) {
    return std::string(WeightFormatName(value));
  };
  const Json root = {{"format", kFormat},
                     {"version", kVersion},
                     {"tool_version", manifest.tool_version},
                     {"digest", ManifestDigest(manifest)},
                     {"source",
                      {{"fingerprint", manifest.source_fingerprint},
                       {"dtype", manifest.source_dtype}}},
                     {"formats",
                      {{"experts", format(manifest.formats.experts)},
                       {"dense", format(manifest.formats.dense)},
                       {"lm_head", format(manifest.formats.lm_head)}}},
                     {"tensors", std::move(tensors)},
                     {"experts",
                      {{"dtype", std::string(DTypeName(manifest.expert_dtype))},
                       {"layers", std::move(layers)}}}};
  return DumpJson(root);
}

absl::StatusOr<Manifest> ParseManifest(absl::string_view json_text) {
  const absl::StatusOr<Json> root =
      ParseJson(json_text, {.max_bytes = kMaxManifestBytes, .max_depth = 8});
  if (!root.ok() || !root->is_object()) {
    return absl::DataLossError(absl::StrCat(
        "the manifest is damaged: ",
        root.ok() ? "not a JSON object" : root.status().message()));
  }
  Reader reader(*root, "");
  SY_RETURN_IF_ERROR(CheckVersion(&reader));
  Manifest manifest;
  manifest.tool_version = reader.Text("tool_version");
  const std::string digest = reader.Digest("digest");
  const Json* const source = reader.Object("source");
  const Json* const formats = reader.Object("formats");
  const Json* const tensors = reader.Array("tensors");
  const Json* const experts = reader.Object("experts");
  SY_RETURN_IF_ERROR(reader.status());

  Reader source_reader(*source, "source.");
  manifest.source_fingerprint = source_reader.Digest("fingerprint");
  manifest.source_dtype = source_reader.Text("dtype");
  SY_RETURN_IF_ERROR(source_reader.status());
  Reader formats_reader(*formats, "formats.");
  manifest.formats.experts = formats_reader.Format("experts");
  manifest.formats.dense = formats_reader.Format("dense");
  manifest.formats.lm_head = formats_reader.Format("lm_head");
  SY_RETURN_IF_ERROR(formats_reader.status());
  SY_RETURN_IF_ERROR(ParseTensors(*tensors, &manifest));
  SY_RETURN_IF_ERROR(ParseExperts(*experts, &manifest));
  if (const std::string found = ManifestDigest(manifest); found != digest) {
    return absl::DataLossError(
        absl::StrCat("the manifest was changed or damaged: its digest is ",
                     digest, ", its content gives ", found,
                     ": copy the file, or convert the model, again"));
  }
  return manifest;
}

}  // namespace switchyard::model
