// The kernels for CPUs with AVX-512 F, BW, DQ and VL: compiled with those
// instructions, so nothing here may run before kernel_table.cc has asked the
// CPU.
//
// No header with inline functions is included (the intrinsics are always
// inlined and never emitted), and everything but the table has internal
// linkage: the linker keeps one copy of a shared inline function, and if it
// kept ours, an older CPU would die in it. tests/kernels checks the object
// file.

#include <immintrin.h>

#include <cstdint>

#include "kernels/exp_polynomial.h"
#include "kernels/kernel_contracts.h"
#include "kernels/scalar/quantized.h"

#define SWITCHYARD_INLINE inline __attribute__((always_inline))

namespace switchyard::kernels {
namespace {

constexpr int64_t kLanes = 16;
// Thirty-two registers: 16 accumulators leave enough for the operands.
constexpr int kRowBlock = 8;
// Of the products; what is left holds their operands.
constexpr int kAccumulators = 24;
constexpr int kTokenBlock = 4;
// Of attention: queries that share a load of the cache, and with them keys (of
// scores) or vectors of columns (of values).
constexpr int kAttentionQueries = 8;
constexpr int kAttentionKeys = 2;
constexpr int kAttentionVectors = 2;
// Units of quantize_block that are tried together.
constexpr int kStepsAtOnce = 7;
// Of the products of quantised weights.
constexpr int kPanelsAtOnce = 1;
constexpr int kTokensAtOnce = 6;
// Of the products of bf16 with bf16.
constexpr int kBf16Rows = 4;
constexpr int kBf16Tokens = 4;
constexpr int kBf16RowsOfOne = 8;

// Each uses what is above it.
// clang-format off
#include "kernels/simd/vector_avx512.inc"
#include "kernels/simd/products.inc"
#include "kernels/simd/attention.inc"
#include "kernels/simd/elementwise.inc"
#include "kernels/softmax_weights.inc"
#include "kernels/simd/recurrence.inc"
#include "kernels/simd/quantize_row.inc"
#include "kernels/simd/quantize_block.inc"
#include "kernels/simd/quantized.inc"
#include "kernels/simd/quantized_maddubs.inc"
#include "kernels/simd/bf16_fma.inc"
#include "kernels/simd/bf16_products.inc"
// clang-format on

}  // namespace

constexpr KernelTable kAvx512Kernels = {
    .name = "avx512",
    .matmul = &Matmul,
    .quantize_block = &QuantizeBlock,
    .quantize_row = &QuantizeRow,
    .quantized_matmul = &QuantizedMatmul,
    .round_to_bf16 = &RoundToBf16,
    .bf16_matmul = &Bf16Matmul,
    .widen = &Widen,
    .dot = &Dot,
    .axpy = &Axpy,
    .attention_scores = &AttentionScores,
    .attention_values = &AttentionValues,
    .rms_norm = &RmsNorm,
    .l2_norm = &L2Norm,
    .silu_mul = &SiluMul,
    .sigmoid_mul = &SigmoidMul,
    .exp_sub_max = &ExpSubMax,
    .softmax_weights = &SoftmaxWeights,
    .rope = &Rope,
    .conv_step = &ConvStep,
    .delta_rule_step = &DeltaRuleStep,
};

}  // namespace switchyard::kernels
