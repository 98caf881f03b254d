#include "tests/testing/checkpoint_writer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/safetensors.h"
#include "model/weight_names.h"
#include "model/weight_values.h"

namespace switchyard::testing {
namespace {

using kernels::DType;

int64_t NumElements(absl::Span<const int64_t> shape) {
  int64_t n = 1;
  for (int64_t size : shape) n *= size;
  return n;
}

uint16_t FloatToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if (std::isnan(value)) return static_cast<uint16_t>(bits >> 16) | 0x40;
  // Half of the dropped 16 bits, less one unless the kept part is odd.
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

uint16_t FloatToF16(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (std::isnan(value)) return sign | 0x7E00;
  // The least value that rounds to infinity: half a step above the greatest.
  if (magnitude >= 65520.0) return sign | 0x7C00;
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude in [0.5, 1) * 2^exponent
  // A step is 2^-24 for subnormals, else 2^-10 of the leading bit. nearbyint
  // rounds ties to even.
  const int step = std::max(exponent - 11, -24);
  const int steps =
      static_cast<int>(std::nearbyint(std::ldexp(magnitude, -step)));
  // 1024 to 2047 steps in a binade: adding them to the exponent's field carries
  // by itself where rounding reaches the next binade.
  const int biased = steps < 1024 ? 0 : step + 24;
  return static_cast<uint16_t>(sign | (biased * 1024 + steps));
}

template <typename T>
void AppendBytes(T value, std::string* bytes) {
  bytes->append(reinterpret_cast<const char*>(&value), sizeof(T));
}

// "ends with .{name}" or equal.
bool IsNamed(const std::string& tensor, absl::string_view name) {
  return tensor == name || absl::EndsWith(tensor, absl::StrCat(".", name));
}

// Uniform in [low, high), the same on every platform (the standard's
// distributions are not).
class Uniform {
 public:
  Uniform(uint64_t seed, const std::string& name)
      : engine_(seed ^ Fnv1a(name)) {}
  float operator()(float low, float high) {
    const double unit = static_cast<double>(engine_() >> 11) * 0x1p-53;
    return static_cast<float>(low + (high - low) * unit);
  }

 private:
  static uint64_t Fnv1a(const std::string& text) {
    uint64_t hash = 0xcbf29ce484222325;  // FNV-1a's offset basis and prime
    for (unsigned char c : text) hash = (hash ^ c) * 0x100000001b3;
    return hash;
  }
  std::mt19937_64 engine_;
};

std::vector<float> RandomValues(uint64_t seed, const std::string& name,
                                absl::Span<const int64_t> shape) {
  // Variance 1 / fan-in keeps activations of order one; a uniform variable on
  // [-a, a) has variance a^2 / 3.
  const int64_t fan_in = shape.size() > 1 ? NumElements(shape.subspan(1)) : 1;
  const float unit = std::sqrt(3.0f / static_cast<float>(fan_in));
  float low = -unit;
  float high = unit;
  bool logarithm = false;
  if (IsNamed(name, "linear_attn.norm.weight")) {
    low = 0.8f, high = 1.2f;  // the only norm that is not zero-centred
  } else if (absl::StrContains(name, "norm")) {
    low = -0.2f, high = 0.2f;
  } else if (IsNamed(name, "A_log")) {
    low = 1, high = 16, logarithm = true;  // as the reference initialises it
  } else if (IsNamed(name, "dt_bias")) {
    low = -4, high = -1;  // decays between forgetting and keeping
  } else if (IsNamed(name, "embed_tokens.weight")) {
    low = -1, high = 1;
  } else if (IsNamed(name, "mlp.gate.weight") ||
             IsNamed(name, model::kLmHeadName)) {
    low = -3 * unit, high = 3 * unit;  // clear routing, clear next tokens
  }
  Uniform uniform(seed, name);
  std::vector<float> values(NumElements(shape));
  for (float& value : values) {
    value = uniform(low, high);
    if (logarithm) value = std::log(value);
  }
  return values;
}

Json HeaderOf(absl::Span<const NamedTensor> tensors) {
  Json header = Json::object();
  header["__metadata__"] = {{"format", "pt"}};
  int64_t offset = 0;
  for (const NamedTensor& tensor : tensors) {
    const int64_t end = offset + static_cast<int64_t>(tensor.bytes.size());
    header[tensor.name] = {
        {"dtype", std::string(model::DTypeName(tensor.dtype))},
        {"shape", tensor.shape},
        {"data_offsets", {offset, end}}};
    offset = end;
  }
  return header;
}

}  // namespace

NamedTensor MakeTensor(std::string name, std::vector<int64_t> shape,
                       absl::Span<const float> values, DType dtype) {
  SY_CHECK(NumElements(shape) == static_cast<int64_t>(values.size()));
  NamedTensor tensor{std::move(name), dtype, std::move(shape), ""};
  tensor.bytes.reserve(values.size() * kernels::DTypeBytes(dtype));
  for (float value : values) {
    switch (dtype) {
      case DType::kBF16:
        AppendBytes(FloatToBf16(value), &tensor.bytes);
        break;
      case DType::kF16:
        AppendBytes(FloatToF16(value), &tensor.bytes);
        break;
      case DType::kF32:
        AppendBytes(value, &tensor.bytes);
        break;
      case DType::kQ8:
      case DType::kQ4:
      case DType::kBF16Dot:
        SY_CHECK(false);  // no Hugging Face checkpoint has them
    }
  }
  return tensor;
}

std::vector<float> TensorValues(const NamedTensor& tensor) {
  const int64_t n = NumElements(tensor.shape);
  std::vector<float> values(n);
  model::WidenWeights({tensor.bytes.data(), tensor.dtype, 1, n}, values.data());
  return values;
}

NamedTensor ConvertTensor(const NamedTensor& tensor, DType dtype) {
  return MakeTensor(tensor.name, tensor.shape, TensorValues(tensor), dtype);
}

absl::StatusOr<std::vector<NamedTensor>> ReadTensors(
    const std::string& directory) {
  std::map<std::string, NamedTensor> by_name;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end;
       !error && it != end; it.increment(error)) {
    const std::string file_name = it->path().filename().string();
    if (!absl::StartsWith(file_name, "model") ||
        !absl::EndsWith(file_name, ".safetensors")) {
      continue;
    }
    SY_ASSIGN_OR_RETURN(const auto file,
                        model::SafetensorsFile::Open(it->path().string()));
    for (const auto& [name, tensor] : file->tensors()) {
      SY_ASSIGN_OR_RETURN(const kernels::WeightView view, file->View(name));
      const auto bytes = file->bytes(tensor);
      by_name[name] = {name, view.dtype, tensor.shape,
                       std::string(bytes.begin(), bytes.end())};
    }
  }
  if (error || by_name.empty()) {
    return absl::NotFoundError(
        absl::StrCat(directory, ": no model*.safetensors: ", error.message()));
  }
  std::vector<NamedTensor> tensors;
  for (auto& [name, tensor] : by_name) tensors.push_back(std::move(tensor));
  return tensors;
}

std::vector<NamedTensor> FuseExperts(const model::ModelConfig& config,
                                     std::vector<NamedTensor> tensors) {
  std::map<std::string, NamedTensor> by_name;
  for (NamedTensor& tensor : tensors) {
    std::string name = tensor.name;
    by_name.emplace(std::move(name), std::move(tensor));
  }
  const int64_t H = config.hidden_size;
  const int64_t I = config.moe_intermediate_size;
  const int64_t E = config.num_experts;
  for (int layer = 0; layer <= config.num_hidden_layers; ++layer) {
    NamedTensor gate_up{
        model::FusedGateUpName(config, layer), {}, {E, 2 * I, H}, ""};
    NamedTensor down{model::FusedDownName(config, layer), {}, {E, H, I}, ""};
    for (int e = 0; e < config.num_experts; ++e) {
      const auto names = model::SeparateExpertNames(config, layer, e);
      if (by_name.count(names.gate_proj) == 0) break;  // a dense layer, no MTP
      gate_up.dtype = by_name[names.gate_proj].dtype;
      down.dtype = by_name[names.down_proj].dtype;
      gate_up.bytes += by_name[names.gate_proj].bytes;
      gate_up.bytes += by_name[names.up_proj].bytes;
      down.bytes += by_name[names.down_proj].bytes;
      by_name.erase(names.gate_proj);
      by_name.erase(names.up_proj);
      by_name.erase(names.down_proj);
    }
    if (gate_up.bytes.empty()) continue;
    by_name[gate_up.name] = gate_up;
    by_name[down.name] = down;
  }
  tensors.clear();
  for (auto& [name, tensor] : by_name) tensors.push_back(std::move(tensor));
  return tensors;
}

absl::Status WriteTextFile(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  return file ? absl::OkStatus()
              : absl::UnavailableError(absl::StrCat(path, ": cannot write"));
}

absl::Status WriteSafetensors(const std::string& path,
                              absl::Span<const NamedTensor> tensors) {
  std::string header = DumpJson(HeaderOf(tensors));
  // Writers pad so that the data begins at a multiple of 8.
  while (header.size() % 8 != 0) header += ' ';
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  const uint64_t length = header.size();
  file.write(reinterpret_cast<const char*>(&length), sizeof(length));
  file << header;
  for (const NamedTensor& tensor : tensors) file << tensor.bytes;
  file.close();
  return file ? absl::OkStatus()
              : absl::UnavailableError(absl::StrCat(path, ": cannot write"));
}

absl::Status WriteCheckpoint(const std::string& directory,
                             const std::string& config_json,
                             absl::Span<const NamedTensor> tensors,
                             int num_shards) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  SY_RETURN_IF_ERROR(
      WriteTextFile(absl::StrCat(directory, "/config.json"), config_json));
  if (num_shards == 1) {
    return WriteSafetensors(absl::StrCat(directory, "/model.safetensors"),
                            tensors);
  }
  Json weight_map = Json::object();
  int64_t total_bytes = 0;
  const size_t n = tensors.size();
  for (int shard = 0; shard < num_shards; ++shard) {
    const size_t begin = n * shard / num_shards;
    const size_t end = n * (shard + 1) / num_shards;
    const std::string file = absl::StrFormat("model-%05d-of-%05d.safetensors",
                                             shard + 1, num_shards);
    for (size_t i = begin; i < end; ++i) {
      weight_map[tensors[i].name] = file;
      total_bytes += static_cast<int64_t>(tensors[i].bytes.size());
    }
    SY_RETURN_IF_ERROR(WriteSafetensors(absl::StrCat(directory, "/", file),
                                        tensors.subspan(begin, end - begin)));
  }
  const Json index = {{"metadata", {{"total_size", total_bytes}}},
                      {"weight_map", weight_map}};
  return WriteTextFile(absl::StrCat(directory, "/model.safetensors.index.json"),
                       DumpJson(index));
}

std::string SmallConfigJson() {
  return R"({
  "architectures": ["Qwen3NextForCausalLM"],
  "model_type": "qwen3_next",
  "vocab_size": 128,
  "hidden_size": 32,
  "num_hidden_layers": 4,
  "full_attention_interval": 4,
  "num_attention_heads": 4,
  "num_key_value_heads": 2,
  "head_dim": 16,
  "partial_rotary_factor": 0.25,
  "rope_theta": 10000,
  "max_position_embeddings": 1024,
  "rms_norm_eps": 1e-06,
  "linear_num_key_heads": 2,
  "linear_num_value_heads": 4,
  "linear_key_head_dim": 8,
  "linear_value_head_dim": 8,
  "linear_conv_kernel_dim": 4,
  "num_experts": 8,
  "num_experts_per_tok": 2,
  "moe_intermediate_size": 16,
  "shared_expert_intermediate_size": 16,
  "intermediate_size": 48,
  "eos_token_id": 2
})";
}

absl::Status WriteRandomCheckpoint(const RandomCheckpointOptions& options,
                                   const std::string& directory) {
  SY_ASSIGN_OR_RETURN(const model::ModelConfig config,
                      model::ParseModelConfig(options.config_json));
  std::vector<NamedTensor> tensors;
  const auto add = [&](const std::string& name,
                       absl::Span<const int64_t> shape) {
    tensors.push_back(
        MakeTensor(name, std::vector<int64_t>(shape.begin(), shape.end()),
                   RandomValues(options.seed, name, shape), options.dtype));
    return absl::OkStatus();
  };
  SY_RETURN_IF_ERROR(
      model::ForEachNonExpertWeight(config, options.with_mtp, add));
  const int layers = config.num_hidden_layers;
  for (int layer = 0; layer < layers + (options.with_mtp ? 1 : 0); ++layer) {
    if (layer < layers && !config.is_moe[layer]) continue;
    SY_RETURN_IF_ERROR(model::ForEachExpertWeight(
        config, layer, model::ExpertForm::kSeparate, add));
  }
  if (options.fused_experts) tensors = FuseExperts(config, std::move(tensors));
  return WriteCheckpoint(directory, options.config_json, tensors,
                         options.num_shards);
}

}  // namespace switchyard::testing
