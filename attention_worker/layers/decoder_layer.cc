#include "attention_worker/layers/decoder_layer.h"

#include <variant>

#include "attention_worker/layers/dense_mlp.h"
#include "attention_worker/layers/gated_attention.h"
#include "attention_worker/layers/gated_delta_net.h"
#include "attention_worker/layers/moe_layer.h"

namespace switchyard::attention_worker {

std::vector<absl::Status> DecoderLayer(
    const LayerContext& context, const DecoderLayerWeights& weights, int layer,
    const RopeTable& rope, ExpertDispatcher* dispatcher,
    absl::Span<const LayerSequence> sequences, int64_t rows, float* x) {
  const int64_t hidden = context.config->hidden_size;
  const Scratch::Frame frame(context.scratch);
  float* const normed = context.scratch->Floats(rows * hidden);
  float* const out = context.scratch->Floats(rows * hidden);

  ZeroCentredRmsNorm(context, x, weights.input_layernorm, rows, normed);
  if (const auto* attention =
          std::get_if<GatedAttentionWeights>(&weights.mixer)) {
    const TimedPart timed(context.timer, StepPart::kAttention);
    GatedAttention(context, *attention, rope, sequences, rows, normed, out);
  } else {
    const TimedPart timed(context.timer, StepPart::kConvolution);
    GatedDeltaNet(context, std::get<GatedDeltaNetWeights>(weights.mixer),
                  sequences, rows, normed, out);
  }
  context.Report("mixer_out", layer, rows, hidden, out);
  AddRows(context, out, rows, hidden, x);

  ZeroCentredRmsNorm(context, x, weights.post_attention_layernorm, rows,
                     normed);
  std::vector<absl::Status> status(sequences.size());
  if (const auto* moe = std::get_if<MoeWeights>(&weights.ffn)) {
    status = MoeLayer(context, *moe, layer, dispatcher, sequences, rows, normed,
                      out);
  } else {
    const TimedPart timed(context.timer, StepPart::kProjections);
    DenseMlp(context, std::get<DenseMlpWeights>(weights.ffn), rows, normed,
             out);
  }
  context.Report("mlp_out", layer, rows, hidden, out);
  AddRows(context, out, rows, hidden, x);
  context.Report("layer", layer, rows, hidden, x);
  return status;
}

}  // namespace switchyard::attention_worker
