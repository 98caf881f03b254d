#include "model/fingerprint.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

// Changes whenever the same checkpoint would give another fingerprint, so that
// mixed versions of Switchyard refuse each other for a reason that shows here.
constexpr char kVersionLine[] = "switchyard fingerprint 1\n";

// 17 significant digits tell every double from every other.
std::string Exact(double value) { return absl::StrFormat("%.17g", value); }

// The bytes of a tensor that count: all of a small one, both ends of others.
std::array<absl::Span<const uint8_t>, 2> SampleOf(
    absl::Span<const uint8_t> bytes) {
  if (bytes.size() <= 2 * kFingerprintSampleBytes) return {bytes, {}};
  return {bytes.first(kFingerprintSampleBytes),
          bytes.last(kFingerprintSampleBytes)};
}

absl::Span<const uint8_t> BytesOf(const kernels::WeightView& weights) {
  return {static_cast<const uint8_t*>(weights.data),
          static_cast<size_t>(WeightBytes(weights))};
}

}  // namespace

void PrefetchFingerprintSample(const kernels::WeightView& weights) {
  static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (absl::Span<const uint8_t> part : SampleOf(BytesOf(weights))) {
    if (part.empty()) continue;
    // madvise wants whole pages. Advice: a refusal does not matter.
    const uintptr_t begin =
        reinterpret_cast<uintptr_t>(part.data()) / page * page;
    const uintptr_t end =
        reinterpret_cast<uintptr_t>(part.data() + part.size());
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);
  }
}

std::string CanonicalConfig(const ModelConfig& c) {
  std::string text;
  const auto add = [&](absl::string_view key, absl::string_view value) {
    absl::StrAppend(&text, key, "=", value, "\n");
  };
  const auto add_int = [&](absl::string_view key, int64_t value) {
    add(key, absl::StrCat(value));
  };
  std::string types;
  std::string moe;
  for (int i = 0; i < c.num_hidden_layers; ++i) {
    types += c.layer_types[i] == LayerType::kFullAttention ? 'F' : 'L';
    moe += c.is_moe[i] ? 'E' : 'D';
  }
  add("layer_types", types);
  add("moe_layers", moe);
  // Head counts: a product of shapes does not tell 4 heads of 32 from 2 of 64.
  add_int("num_attention_heads", c.num_attention_heads);
  add_int("num_key_value_heads", c.num_key_value_heads);
  add_int("head_dim", c.head_dim);
  add_int("linear_num_key_heads", c.linear_num_key_heads);
  add_int("linear_num_value_heads", c.linear_num_value_heads);
  add_int("linear_key_head_dim", c.linear_key_head_dim);
  add_int("linear_value_head_dim", c.linear_value_head_dim);
  add_int("num_experts_per_tok", c.num_experts_per_tok);
  add_int("norm_topk_prob", c.norm_topk_prob);
  add_int("tie_word_embeddings", c.tie_word_embeddings);
  add("rms_norm_eps", Exact(c.rms_norm_eps));
  add("rope_theta", Exact(c.rope.theta));
  add_int("rotary_dim", c.rotary_dim());
  if (c.rope.yarn) {
    add("yarn_factor", Exact(c.rope.factor));
    add_int("yarn_original_max_position_embeddings",
            c.rope.original_max_position_embeddings);
    add("yarn_beta_fast", Exact(c.rope.beta_fast));
    add("yarn_beta_slow", Exact(c.rope.beta_slow));
    add_int("yarn_truncate", c.rope.truncate);
    add("yarn_attention_factor", Exact(c.rope.attention_factor));
  }
  return text;
}

FingerprintBuilder::FingerprintBuilder(const ModelConfig& config) {
  hash_.Update(kVersionLine);
  hash_.Update(CanonicalConfig(config));
}

void FingerprintBuilder::Add(absl::string_view name,
                             const kernels::WeightView& weights) {
  hash_.Update(absl::StrCat(name, " ", DTypeName(weights.dtype), " ",
                            weights.rows, "x", weights.cols, "\n"));
  for (absl::Span<const uint8_t> part : SampleOf(BytesOf(weights)))
    hash_.Update(part);
}

void FingerprintBuilder::Add(absl::string_view name, absl::string_view dtype,
                             absl::Span<const int64_t> shape,
                             absl::Span<const uint8_t> bytes) {
  hash_.Update(
      absl::StrCat(name, " ", dtype, " ", absl::StrJoin(shape, "x"), "\n"));
  for (absl::Span<const uint8_t> part : SampleOf(bytes)) hash_.Update(part);
}

std::string FingerprintBuilder::Finish() { return hash_.FinishHex(); }

}  // namespace switchyard::model
