#include "attention_worker/layers/embedding.h"

#include "kernels/matrix.h"
#include "kernels/weight_codec.h"

namespace switchyard::attention_worker {

void Embed(const LayerContext& context, const kernels::WeightView& embed_tokens,
           absl::Span<const int32_t> tokens, float* y) {
  const int64_t hidden = embed_tokens.cols;
  const bool quantized = IsQuantized(embed_tokens.dtype);
  const int64_t row_bytes =
      quantized
          ? 0
          : hidden *
                static_cast<int64_t>(kernels::DTypeBytes(embed_tokens.dtype));
  ForEach(context, static_cast<int64_t>(tokens.size()), hidden,
          [&](int64_t begin, int64_t end) {
            for (int64_t t = begin; t < end; ++t) {
              if (quantized) {
                DequantizeRow(embed_tokens, tokens[t], y + t * hidden);
                continue;
              }
              context.kernels->widen(
                  static_cast<const char*>(embed_tokens.data) +
                      tokens[t] * row_bytes,
                  embed_tokens.dtype, hidden, y + t * hidden);
            }
          });
}

}  // namespace switchyard::attention_worker
