#include "attention_worker/layers/lm_head.h"

#include <cstring>

#include "attention_worker/layers/mat_mul.h"

namespace switchyard::attention_worker {
namespace {

// Rows that are gathered for one pass over the weights; it bounds the scratch
// (39 MB of logits at V = 151936).
constexpr size_t kRowsPerPass = 64;

}  // namespace

void LmHead(const LayerContext& context, const kernels::WeightView& lm_head,
            absl::Span<const LogitsRow> rows) {
  const TimedPart timed(context.timer, StepPart::kLmHead);
  const int64_t hidden = lm_head.cols;
  const int64_t vocab = lm_head.rows;
  while (!rows.empty()) {
    const absl::Span<const LogitsRow> pass =
        rows.first(rows.size() < kRowsPerPass ? rows.size() : kRowsPerPass);
    rows.remove_prefix(pass.size());
    if (pass.size() == 1) {
      const MatMulJob job[] = {
          {lm_head, pass[0].hidden, hidden, pass[0].logits, vocab}};
      MatMul(context, job, 1);
      continue;
    }
    const int64_t n = static_cast<int64_t>(pass.size());
    const Scratch::Frame frame(context.scratch);
    float* const x = context.scratch->Floats(n * hidden);
    float* const y = context.scratch->Floats(n * vocab);
    for (int64_t i = 0; i < n; ++i) {
      std::memcpy(x + i * hidden, pass[i].hidden, hidden * sizeof(float));
    }
    const MatMulJob job[] = {{lm_head, x, hidden, y, vocab}};
    MatMul(context, job, n);
    ForEach(context, n, vocab, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        std::memcpy(pass[i].logits, y + i * vocab, vocab * sizeof(float));
      }
    });
  }
}

}  // namespace switchyard::attention_worker
