#include "model/conversion/random_source.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/math.h"
#include "model/fingerprint.h"
#include "model/sha256.h"
#include "model/weight_names.h"

namespace switchyard::model {
namespace {

constexpr int64_t kTableSize = 1 << 20;
constexpr char kVersionLine[] = "switchyard random weights 1\n";

// SplitMix64 (Steele, Lea and Flood 2014).
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

// In [0, 1), in steps of 2^-24.
float Unit(uint64_t bits) { return static_cast<float>(bits >> 40) * 0x1p-24f; }

// The sum of 12 uniform numbers, less 6: variance 1, no libm.
float Normal(uint64_t key) {
  float sum = -6;
  for (uint64_t i = 0; i < 12; ++i) sum += Unit(Mix(key + i));
  return sum;
}

uint64_t HashOf(absl::string_view name) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a's offset basis and prime
  for (const unsigned char c : name) hash = (hash ^ c) * 0x100000001b3;
  return hash;
}

// The nearest bf16, ties to even.
float RoundToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000u);
}

enum class Values { kNormal, kZero, kOne, kLogOfA, kDtBias };

Values ValuesOf(absl::string_view name) {
  if (absl::EndsWith(name, "linear_attn.norm.weight")) return Values::kOne;
  if (absl::EndsWith(name, ".A_log")) return Values::kLogOfA;
  if (absl::EndsWith(name, ".dt_bias")) return Values::kDtBias;
  return absl::StrContains(name, "norm") ? Values::kZero : Values::kNormal;
}

class RandomTensor final : public SourceTensor {
 public:
  RandomTensor(absl::string_view name, uint64_t seed, int64_t rows,
               int64_t cols, const std::vector<float>* table)
      : SourceTensor(kernels::DType::kBF16, rows, cols),
        values_(ValuesOf(name)),
        key_(Mix(seed ^ HashOf(name))),
        // The embedding is not multiplied with, so it has no fan-in.
        scale_(name == kEmbeddingName
                   ? 1.0f
                   : 1.0f / std::sqrt(static_cast<float>(cols))),
        table_(*table) {}

  void ReadRows(int64_t begin, int64_t count, float* out) const override {
    for (int64_t row = begin; row < begin + count; ++row, out += cols()) {
      if (values_ == Values::kNormal) {
        ReadNormalRow(row, out);
      } else {
        for (int64_t c = 0; c < cols(); ++c) {
          out[c] = RoundToBf16(Special(Mix(key_ + row * cols() + c)));
        }
      }
    }
  }
  void Release(int64_t, int64_t) const override {}

 private:
  void ReadNormalRow(int64_t row, float* out) const {
    int64_t from = static_cast<int64_t>(Mix(key_ + row) % kTableSize);
    for (int64_t done = 0; done < cols(); from = 0) {
      const int64_t n = std::min(cols() - done, kTableSize - from);
      const float* const stretch = table_.data() + from;
      for (int64_t c = 0; c < n; ++c) {
        out[done + c] = RoundToBf16(stretch[c] * scale_);
      }
      done += n;
    }
  }

  float Special(uint64_t bits) const {
    switch (values_) {
      case Values::kNormal:
      case Values::kZero:
        return 0;
      case Values::kOne:
        return 1;
      case Values::kLogOfA:  // A in [1, 16)
        return kernels::Log(1 + 15 * Unit(bits));
      case Values::kDtBias: {
        // The inverse of softplus, of dt from 0.001 to 0.1, evenly in log dt.
        const float dt = kernels::Exp(-6.9077553f + 4.6051702f * Unit(bits));
        return kernels::Log(kernels::Exp(dt) - 1);
      }
    }
    SY_CHECK(false);
  }

  const Values values_;
  const uint64_t key_;
  const float scale_;
  const std::vector<float>& table_;
};

class RandomSource final : public WeightSource {
 public:
  RandomSource(const ModelConfig& config, bool with_mtp, uint64_t seed)
      : config_(config), with_mtp_(with_mtp), seed_(seed), table_(kTableSize) {
    for (int64_t i = 0; i < kTableSize; ++i) {
      table_[i] = Normal(Mix(seed ^ Mix(i)));
    }
    Sha256 hash;
    hash.Update(absl::StrCat(kVersionLine, seed, " ", with_mtp, "\n",
                             CanonicalConfig(config)));
    // A visitor that never fails.
    (void)ForEachNonExpertWeight(
        config, with_mtp,
        [&](const std::string& name, absl::Span<const int64_t> shape) {
          int64_t rest = 1;
          for (const int64_t size : shape) rest *= size;
          const int64_t rows = shape.size() < 2 ? 1 : shape[0];
          shapes_[name] = {rows, rest / rows};
          hash.Update(absl::StrCat(name, " ", rows, "x", rest / rows, "\n"));
          return absl::OkStatus();
        });
    hash.Update(
        absl::StrCat(config.num_experts, " ", config.moe_intermediate_size));
    fingerprint_ = hash.FinishHex();
  }

  const ModelConfig& config() const override { return config_; }
  bool has_mtp() const override { return with_mtp_; }
  const std::string& fingerprint() const override { return fingerprint_; }
  const std::string& dtype_name() const override { return dtype_name_; }

  absl::StatusOr<std::unique_ptr<SourceTensor>> Find(
      absl::string_view name) const override {
    if (config_.tie_word_embeddings && name == kLmHeadName) {
      name = kEmbeddingName;
    }
    const auto it = shapes_.find(name);
    if (it == shapes_.end()) {
      return absl::NotFoundError(absl::StrCat("there is no tensor ", name));
    }
    return Tensor(name, it->second.first, it->second.second);
  }
  absl::StatusOr<SourceExpert> FindExpert(int layer,
                                          int expert) const override {
    const ExpertNames names = SeparateExpertNames(config_, layer, expert);
    const int64_t H = config_.hidden_size;
    const int64_t I = config_.moe_intermediate_size;
    return SourceExpert{Tensor(names.gate_proj, I, H),
                        Tensor(names.up_proj, I, H),
                        Tensor(names.down_proj, H, I)};
  }

 private:
  std::unique_ptr<SourceTensor> Tensor(absl::string_view name, int64_t rows,
                                       int64_t cols) const {
    return std::make_unique<RandomTensor>(name, seed_, rows, cols, &table_);
  }

  const ModelConfig config_;
  const bool with_mtp_;
  const uint64_t seed_;
  const std::string dtype_name_ = "BF16";
  std::vector<float> table_;
  // [rows, cols] of every tensor but the routed experts'.
  absl::flat_hash_map<std::string, std::pair<int64_t, int64_t>> shapes_;
  std::string fingerprint_;
};

}  // namespace

std::unique_ptr<WeightSource> NewRandomSource(const ModelConfig& config,
                                              bool with_mtp, uint64_t seed) {
  return std::make_unique<RandomSource>(config, with_mtp, seed);
}

}  // namespace switchyard::model
