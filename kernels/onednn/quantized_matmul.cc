#include "kernels/onednn/quantized_matmul.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <dnnl.hpp>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/weight_codec.h"

namespace switchyard::kernels {
namespace {

using ::dnnl::memory;

absl::Status StatusOf(const dnnl::error& error, const WeightView& weight,
                      int64_t tokens) {
  const std::string text = absl::StrCat(
      "oneDNN integer matmul of [", tokens, ", ", weight.cols, "] x [",
      weight.rows, ", ", weight.cols, "]^T: ", error.what());
  return error.status == dnnl_unimplemented ? absl::UnimplementedError(text)
                                            : absl::InternalError(text);
}

// The one call that differs between oneDNN 2 and 3.
dnnl::matmul::primitive_desc MatmulOf(const dnnl::engine& engine,
                                      const memory::desc& x,
                                      const memory::desc& weight,
                                      const memory::desc& y) {
#if DNNL_VERSION_MAJOR >= 3
  return dnnl::matmul::primitive_desc(engine, x, weight, y);
#else
  return dnnl::matmul::primitive_desc(dnnl::matmul::desc(x, weight, y), engine);
#endif
}

// Whether oneDNN's products of bytes are exact: with AVX-512 VNNI and what was
// built on it. In oneDNN 2 and 3 an instruction set's number has the bits of
// those that it contains; the sets that have names differ.
bool BytesAreExact() {
  const auto vnni = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_vnni);
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  return (isa & vnni) == vnni;
}

// y[r] = fma(dot[r], weight_scale[r] * x_scale, y[r]), in vectors: whoever has
// AVX-512 VNNI has these instructions.
#if defined(__x86_64__)
__attribute__((target("avx512f")))
#endif
void AddScaled(const int32_t* dot, const float* weight_scale, float x_scale,
               int64_t rows, float* y) {
  for (int64_t r = 0; r < rows; ++r) {
    y[r] = __builtin_fmaf(static_cast<float>(dot[r]), weight_scale[r] * x_scale,
                          y[r]);
  }
}

}  // namespace

struct OneDnnQuantizedMatmul::Impl {
  // Throws dnnl::error.
  Impl(const WeightView& weight, int64_t num_tokens)
      : rows(weight.rows),
        cols(weight.cols),
        tokens(num_tokens),
        engine(dnnl::engine::kind::cpu, 0),
        stream(engine),
        x_desc({tokens, kGroupColumns}, memory::data_type::s8,
               memory::dims{PaddedColumns(cols), 1}),
        dot(memory::desc({tokens, rows}, memory::data_type::s32,
                         memory::format_tag::ab),
            engine) {
    const auto description =
        MatmulOf(engine, x_desc,
                 memory::desc({kGroupColumns, rows}, memory::data_type::s8,
                              memory::format_tag::any),
                 dot.get_desc());
    matmul = dnnl::matmul(description);
    // W as bytes, one group of columns after another: each is, transposed, a
    // matrix [32, R] with strides (1, 32). oneDNN 3 packs none with gaps.
    const int64_t num_groups = NumGroups(cols);
    std::vector<int8_t> row(static_cast<size_t>(PaddedColumns(cols)));
    std::vector<float> row_scales(static_cast<size_t>(num_groups));
    std::vector<int8_t> q(static_cast<size_t>(rows) * row.size());
    scales.resize(static_cast<size_t>(num_groups * rows));
    for (int64_t r = 0; r < rows; ++r) {
      UnpackRow(weight, r, row.data(), row_scales.data());
      for (int64_t g = 0; g < num_groups; ++g) {
        std::memcpy(q.data() + (g * rows + r) * kGroupColumns,
                    row.data() + g * kGroupColumns, kGroupColumns);
        scales[static_cast<size_t>(g * rows + r)] =
            row_scales[static_cast<size_t>(g)];
      }
    }
    const memory::desc plain({kGroupColumns, rows}, memory::data_type::s8,
                             memory::dims{1, kGroupColumns});
    for (int64_t g = 0; g < num_groups; ++g) {
      memory from(plain, engine, q.data() + g * rows * kGroupColumns);
      memory to(description.weights_desc(), engine);
      dnnl::reorder(from, to).execute(stream, from, to);
      stream.wait();
      groups.push_back(std::move(to));
    }
  }

  const int64_t rows;
  const int64_t cols;
  const int64_t tokens;
  dnnl::engine engine;
  dnnl::stream stream;
  const memory::desc x_desc;  // of one group
  memory dot;                 // [tokens, rows]
  dnnl::matmul matmul;        // of one group
  std::vector<memory> groups;
  std::vector<float> scales;  // [groups, rows]
};

OneDnnQuantizedMatmul::OneDnnQuantizedMatmul(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)) {}
OneDnnQuantizedMatmul::~OneDnnQuantizedMatmul() = default;

absl::StatusOr<std::unique_ptr<OneDnnQuantizedMatmul>>
OneDnnQuantizedMatmul::Create(const WeightView& weight, int64_t tokens) {
  if (!IsQuantized(weight.dtype) || weight.rows < 1 || weight.cols < 1 ||
      tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "oneDNN integer matmul: needs a quantised weight of at least one row "
        "and column, not [",
        weight.rows, ", ", weight.cols, "], and at least one token, not ",
        tokens));
  }
  if (!BytesAreExact()) {
    return absl::UnimplementedError(
        "oneDNN's products of bytes are not exact without AVX-512 VNNI");
  }
  try {
    return std::unique_ptr<OneDnnQuantizedMatmul>(
        new OneDnnQuantizedMatmul(std::make_unique<Impl>(weight, tokens)));
  } catch (const dnnl::error& error) {
    return StatusOf(error, weight, tokens);
  }
}

absl::Status OneDnnQuantizedMatmul::Run(const QuantizedRows& x, float* y) {
  Impl& impl = *impl_;
  const int64_t num_groups = NumGroups(impl.cols);
  for (int64_t i = 0; i < impl.tokens * impl.rows; ++i) y[i] = 0;
  try {
    for (int64_t g = 0; g < num_groups; ++g) {
      // oneDNN's memory has no const; it only reads x.
      memory values(impl.x_desc, impl.engine,
                    const_cast<int8_t*>(x.values + g * kGroupColumns));
      impl.matmul.execute(
          impl.stream, {{DNNL_ARG_SRC, values},
                        {DNNL_ARG_WEIGHTS, impl.groups[static_cast<size_t>(g)]},
                        {DNNL_ARG_DST, impl.dot}});
      impl.stream.wait();
      const auto* const dot =
          static_cast<const int32_t*>(impl.dot.get_data_handle());
      for (int64_t t = 0; t < impl.tokens; ++t) {
        AddScaled(dot + t * impl.rows, impl.scales.data() + g * impl.rows,
                  x.scales[t * num_groups + g], impl.rows, y + t * impl.rows);
      }
    }
    return absl::OkStatus();
  } catch (const dnnl::error& error) {
    return StatusOf(error, {nullptr, DType::kQ8, impl.rows, impl.cols},
                    impl.tokens);
  }
}

}  // namespace switchyard::kernels
