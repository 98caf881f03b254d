#include <cmath>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/check.h"
#include "model/config.h"
#include "model/fingerprint.h"
#include "model/rope_frequencies.h"
#include "model/weight_names.h"
#include "tests/fuzz/fuzz_target.h"

namespace switchyard::fuzz {
namespace {

// Every size that follows from an accepted config fits its type.
void CheckConfig(const model::ModelConfig& config) {
  SY_CHECK(static_cast<int>(config.layer_types.size()) ==
           config.num_hidden_layers);
  SY_CHECK(static_cast<int>(config.is_moe.size()) == config.num_hidden_layers);
  SY_CHECK(config.num_experts_per_tok <= config.num_experts);
  const int rotary_dim = config.rotary_dim();
  SY_CHECK(0 < rotary_dim && rotary_dim <= config.head_dim);

  const model::RopeFrequencies rope = model::ComputeRopeFrequencies(config);
  SY_CHECK(static_cast<int>(rope.inv_freq.size()) == rotary_dim / 2);
  for (double frequency : rope.inv_freq) {
    SY_CHECK(std::isfinite(frequency) && frequency > 0 && frequency <= 1);
  }
  SY_CHECK(std::isfinite(rope.attention_factor) && rope.attention_factor > 0);
  SY_CHECK(!model::CanonicalConfig(config).empty());

  int visits = 0;
  const auto check_shape = [&](const std::string& name,
                               absl::Span<const int64_t> shape) {
    SY_CHECK(!name.empty());
    int64_t bytes = 4;
    for (int64_t size : shape) {
      SY_CHECK(size > 0);
      SY_CHECK(!__builtin_mul_overflow(bytes, size, &bytes));
    }
    // Hundreds of thousands of names would tell nothing new, slowly.
    return ++visits < 100 ? absl::OkStatus() : absl::CancelledError();
  };
  (void)model::ForEachNonExpertWeight(config, /*with_mtp=*/true, check_shape);
  visits = 0;
  for (const auto form :
       {model::ExpertForm::kFused, model::ExpertForm::kSeparate}) {
    (void)model::ForEachExpertWeight(config, 0, form, check_shape);
  }
}

}  // namespace

void FuzzConfig(absl::Span<const uint8_t> bytes) {
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()),
                               bytes.size());
  const auto config = model::ParseModelConfig(text);
  if (config.ok()) CheckConfig(*config);
  const auto generation = model::ParseGenerationConfig(text);
  if (generation.ok()) {
    SY_CHECK(generation->temperature >= 0 && generation->temperature <= 100);
    SY_CHECK(generation->top_p > 0 && generation->top_p <= 1);
    SY_CHECK(generation->top_k >= 0);
    SY_CHECK(generation->min_p >= 0 && generation->min_p <= 1);
    SY_CHECK(generation->repetition_penalty > 0);
  }
}

}  // namespace switchyard::fuzz

SWITCHYARD_FUZZER_ENTRY(FuzzConfig);
