// Hidden states to logits.

#ifndef SWITCHYARD_ATTENTION_WORKER_LAYERS_LM_HEAD_H_
#define SWITCHYARD_ATTENTION_WORKER_LAYERS_LM_HEAD_H_

#include <cstdint>

#include "absl/types/span.h"
#include "attention_worker/layers/layer_context.h"
#include "kernels/matrix.h"

namespace switchyard::attention_worker {

// One row that logits are wanted of.
struct LogitsRow {
  const float* hidden = nullptr;  // [H], after the final norm
  float* logits = nullptr;        // [V]
};

// logits = hidden lm_head^T for every row, the weights read once for up to 64
// of them.
void LmHead(const LayerContext& context, const kernels::WeightView& lm_head,
            absl::Span<const LogitsRow> rows);

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_LAYERS_LM_HEAD_H_
