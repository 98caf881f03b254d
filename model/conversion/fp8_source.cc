#include "model/conversion/fp8_source.h"

#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "model/checkpoint_base.h"
#include "model/fingerprint.h"
#include "model/json_fields.h"
#include "model/safetensors.h"
#include "model/tensor_files.h"
#include "model/weight_names.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

using kernels::DType;
using kernels::WeightView;

constexpr int64_t kBlock = 128;
constexpr char kFp8[] = "F8_E4M3";
constexpr char kScaleSuffix[] = "_scale_inv";

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

const std::array<float, 256>& E4M3Table() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> values;
    for (int bits = 0; bits < 256; ++bits) {
      values[bits] = FloatOfE4M3(static_cast<uint8_t>(bits));
    }
    return values;
  }();
  return table;
}

class Fp8Tensor final : public SourceTensor {
 public:
  Fp8Tensor(const uint8_t* data, int64_t rows, int64_t cols,
            std::vector<float> scales)
      : SourceTensor(DType::kBF16, rows, cols),
        data_(data),
        scales_(std::move(scales)) {}

  void ReadRows(int64_t begin, int64_t count, float* out) const override {
    const std::array<float, 256>& table = E4M3Table();
    const int64_t blocks = CeilDiv(cols(), kBlock);
    for (int64_t row = begin; row < begin + count; ++row) {
      const uint8_t* const values = data_ + row * cols();
      const float* const scales = scales_.data() + row / kBlock * blocks;
      for (int64_t c = 0; c < cols(); ++c) {
        *out++ = table[values[c]] * scales[c / kBlock];
      }
    }
  }
  void Release(int64_t begin, int64_t count) const override {
    ReleaseMappedPages(data_ + begin * cols(), count * cols());
  }

 private:
  const uint8_t* const data_;
  const std::vector<float> scales_;  // [ceil(rows / 128), ceil(cols / 128)]
};

class Fp8Source final : public WeightSource {
 public:
  explicit Fp8Source(std::string directory)
      : directory_(std::move(directory)) {}

  absl::Status Open();

  const ModelConfig& config() const override { return config_; }
  bool has_mtp() const override { return has_mtp_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  const std::string& dtype_name() const override { return dtype_name_; }
  absl::StatusOr<std::unique_ptr<SourceTensor>> Find(
      absl::string_view name) const override;
  absl::StatusOr<SourceExpert> FindExpert(int layer, int expert) const override;

 private:
  absl::Status CheckQuantizationConfig() const;
  // Checks the tensor (and its scales), and adds it to the fingerprint.
  absl::Status Check(const std::string& name, absl::Span<const int64_t> shape,
                     FingerprintBuilder* builder) const;

  const std::string directory_;
  const std::string dtype_name_ = kFp8;
  ModelConfig config_;
  std::unique_ptr<TensorFiles> files_;
  bool has_mtp_ = false;
  std::string fingerprint_;
};

absl::Status Fp8Source::CheckQuantizationConfig() const {
  const std::string path = absl::StrCat(directory_, "/", kConfigFile);
  SY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  SY_ASSIGN_OR_RETURN(const Json root,
                      ParseJson(text, {.max_bytes = kMaxConfigBytes}));
  const Json config =
      root.is_object() ? root.value("quantization_config", Json()) : Json();
  const auto wrong = [&](const std::string& key) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": quantization_config.", key, " is ",
        config.is_object() && config.contains(key) ? DescribeJson(config[key])
                                                   : std::string("missing"),
        "; FP8 with quant_method \"fp8\", fmt \"e4m3\" and weight_block_size "
        "[128, 128] is read"));
  };
  if (!config.is_object() || config.value("quant_method", Json()) != "fp8") {
    return wrong("quant_method");
  }
  // Left out, it is e4m3.
  if (config.value("fmt", Json("e4m3")) != "e4m3") return wrong("fmt");
  if (config.value("weight_block_size", Json()) != Json({kBlock, kBlock})) {
    return wrong("weight_block_size");
  }
  return absl::OkStatus();
}

absl::Status Fp8Source::Open() {
  SY_ASSIGN_OR_RETURN(config_,
                      ReadModelConfig(directory_, QuantizationConfig::kIgnore));
  SY_RETURN_IF_ERROR(CheckQuantizationConfig());
  SY_ASSIGN_OR_RETURN(files_, TensorFiles::Open(directory_));
  for (const auto& [name, file] : files_->tensors()) {
    has_mtp_ = has_mtp_ || absl::StartsWith(name, kMtpPrefix);
  }
  FingerprintBuilder builder(config_);
  const auto check = [&](const std::string& name,
                         absl::Span<const int64_t> shape) {
    return Check(name, shape, &builder);
  };
  SY_RETURN_IF_ERROR(ForEachNonExpertWeight(config_, has_mtp_, check));
  const int layers = config_.num_hidden_layers;
  for (int layer = 0; layer < layers + (has_mtp_ ? 1 : 0); ++layer) {
    if (layer < layers && !config_.is_moe[layer]) continue;
    SY_RETURN_IF_ERROR(
        ForEachExpertWeight(config_, layer, ExpertForm::kSeparate, check));
  }
  fingerprint_ = builder.Finish();
  return absl::OkStatus();
}

absl::Status Fp8Source::Check(const std::string& name,
                              absl::Span<const int64_t> shape,
                              FingerprintBuilder* builder) const {
  const SafetensorsFile* const file = files_->FileOf(name);
  if (file == nullptr) {
    return absl::NotFoundError(absl::StrCat(
        directory_, ": no file holds tensor ", name, " of shape ",
        FormatShape(shape), ", which ", kConfigFile, " calls for"));
  }
  const SafetensorsTensor& tensor = *file->Find(name);
  if (shape != absl::MakeConstSpan(tensor.shape)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file->path(), ": tensor ", name, " has shape ",
                     FormatShape(tensor.shape), "; ", kConfigFile,
                     " calls for ", FormatShape(shape)));
  }
  builder->Add(name, tensor.dtype, shape, file->bytes(tensor));
  if (tensor.dtype != kFp8) return file->View(name).status();

  const std::string scale_name = absl::StrCat(name, kScaleSuffix);
  const SafetensorsFile* const scale_file = files_->FileOf(scale_name);
  if (scale_file == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        file->path(), ": tensor ", name, " is ", kFp8, ", but no file holds ",
        scale_name, ", its scales: fetch the whole checkpoint again"));
  }
  if (shape.size() != 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        file->path(), ": tensor ", name, " of shape ", FormatShape(shape),
        " is ", kFp8, "; only matrices are read in that dtype"));
  }
  const SafetensorsTensor& scale = *scale_file->Find(scale_name);
  const std::vector<int64_t> blocks = {CeilDiv(shape[0], kBlock),
                                       CeilDiv(shape[1], kBlock)};
  if (scale.shape != blocks) {
    return absl::InvalidArgumentError(
        absl::StrCat(scale_file->path(), ": tensor ", scale_name, " has shape ",
                     FormatShape(scale.shape), "; one scale for each block of ",
                     kBlock, "x", kBlock, " is ", FormatShape(blocks)));
  }
  builder->Add(scale_name, scale.dtype, scale.shape, scale_file->bytes(scale));
  return scale_file->View(scale_name).status();
}

absl::StatusOr<std::unique_ptr<SourceTensor>> Fp8Source::Find(
    absl::string_view name) const {
  if (config_.tie_word_embeddings && name == kLmHeadName) {
    name = kEmbeddingName;
  }
  const SafetensorsFile* const file = files_->FileOf(name);
  if (file == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(directory_, ": no file holds tensor ", name));
  }
  const SafetensorsTensor& tensor = *file->Find(name);
  if (tensor.dtype != kFp8) {
    SY_ASSIGN_OR_RETURN(const WeightView view, file->View(name));
    return NewViewedTensor(view);
  }
  const std::string scale_name = absl::StrCat(name, kScaleSuffix);
  SY_ASSIGN_OR_RETURN(std::vector<float> scales,
                      files_->FileOf(scale_name)->ReadFloats(scale_name));
  return std::make_unique<Fp8Tensor>(file->bytes(tensor).data(),
                                     tensor.shape[0], tensor.shape[1],
                                     std::move(scales));
}

absl::StatusOr<SourceExpert> Fp8Source::FindExpert(int layer,
                                                   int expert) const {
  const ExpertNames names = SeparateExpertNames(config_, layer, expert);
  SourceExpert found;
  SY_ASSIGN_OR_RETURN(found.gate_proj, Find(names.gate_proj));
  SY_ASSIGN_OR_RETURN(found.up_proj, Find(names.up_proj));
  SY_ASSIGN_OR_RETURN(found.down_proj, Find(names.down_proj));
  return found;
}

}  // namespace

float FloatOfE4M3(uint8_t bits) {
  constexpr int kMantissaBits = 3;
  constexpr int kBias = 7;
  const int exponent = (bits >> kMantissaBits) & 0xF;
  const int mantissa = bits & 0x7;
  const float sign = (bits & 0x80) != 0 ? -1.0f : 1.0f;
  if (exponent == 0xF && mantissa == 0x7) {
    return std::numeric_limits<float>::quiet_NaN();
  }
  const float value =
      exponent == 0
          ? std::ldexp(static_cast<float>(mantissa), 1 - kBias - kMantissaBits)
          : std::ldexp(static_cast<float>(mantissa + 8),
                       exponent - kBias - kMantissaBits);
  return sign * value;
}

absl::StatusOr<std::unique_ptr<WeightSource>> OpenFp8Source(
    const std::string& directory) {
  auto source = std::make_unique<Fp8Source>(directory);
  SY_RETURN_IF_ERROR(source->Open());
  return source;
}

}  // namespace switchyard::model
