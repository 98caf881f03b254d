#include "kernels/onednn/matmul.h"

#include <cstddef>
#include <cstring>
#include <dnnl.hpp>
#include <list>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace switchyard::kernels {
namespace {

using ::dnnl::memory;

absl::Status StatusOf(const dnnl::error& error, const WeightView& weight,
                      int64_t tokens) {
  const std::string text = absl::StrCat(
      "oneDNN matmul of [", tokens, ", ", weight.cols, "] x [", weight.rows,
      ", ", weight.cols, "]^T, ", weight.dtype == DType::kBF16 ? "bf16" : "f32",
      ": ", error.what());
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

}  // namespace

struct OneDnnMatmul::Impl {
  // What one token count needs.
  struct Product {
    int64_t tokens = 0;
    dnnl::matmul matmul;
    memory weight;  // packed as `matmul` wants it; shared where layouts agree
    memory rounded_x;  // bf16 only
    dnnl::reorder round_x;
  };
  // A server has few batch sizes at a time; more are made anew.
  static constexpr size_t kMaxProducts = 8;

  // Copies the weights: W[R, C] row-major is the transposed matrix [C, R] with
  // the strides (1, C).
  explicit Impl(const WeightView& weight)
      : view(weight),
        engine(dnnl::engine::kind::cpu, 0),
        stream(engine),
        dtype(weight.dtype == DType::kBF16 ? memory::data_type::bf16
                                           : memory::data_type::f32),
        plain_weight(memory::desc({weight.cols, weight.rows}, dtype,
                                  memory::dims{1, weight.cols}),
                     engine) {
    std::memcpy(plain_weight.get_data_handle(), weight.data,
                static_cast<size_t>(weight.rows * weight.cols) *
                    DTypeBytes(weight.dtype));
    view.data = nullptr;  // the caller's; not to be kept
  }

  // Throws dnnl::error.
  Product MakeProduct(int64_t tokens) {
    const memory::desc x({tokens, view.cols}, dtype, memory::format_tag::ab);
    const memory::desc any_weight({view.cols, view.rows}, dtype,
                                  memory::format_tag::any);
    const memory::desc y({tokens, view.rows}, memory::data_type::f32,
                         memory::format_tag::ab);
    const auto description = MatmulOf(engine, x, any_weight, y);

    Product product;
    product.tokens = tokens;
    product.matmul = dnnl::matmul(description);
    for (const Product& other : products) {
      if (other.weight.get_desc() == description.weights_desc()) {
        product.weight = other.weight;
      }
    }
    if (!product.weight) {
      product.weight = memory(description.weights_desc(), engine);
      dnnl::reorder(plain_weight, product.weight)
          .execute(stream, plain_weight, product.weight);
      stream.wait();
    }
    if (dtype == memory::data_type::bf16) {
      product.rounded_x = memory(x, engine);
      const memory::desc floats({tokens, view.cols}, memory::data_type::f32,
                                memory::format_tag::ab);
      product.round_x = dnnl::reorder(
          dnnl::reorder::primitive_desc(engine, floats, engine, x));
    }
    return product;
  }

  // The product for `tokens`, most recently used first. Throws dnnl::error.
  Product& Find(int64_t tokens) {
    for (auto it = products.begin(); it != products.end(); ++it) {
      if (it->tokens == tokens) {
        products.splice(products.begin(), products, it);
        return products.front();
      }
    }
    products.push_front(MakeProduct(tokens));
    if (products.size() > kMaxProducts) products.pop_back();
    return products.front();
  }

  WeightView view;  // without data
  dnnl::engine engine;
  dnnl::stream stream;
  const memory::data_type dtype;
  memory plain_weight;
  std::list<Product> products;
};

OneDnnMatmul::OneDnnMatmul(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)) {}
OneDnnMatmul::~OneDnnMatmul() = default;

absl::StatusOr<std::unique_ptr<OneDnnMatmul>> OneDnnMatmul::Create(
    const WeightView& weight) {
  if (weight.dtype == DType::kF16) {
    return absl::InvalidArgumentError(
        "oneDNN matmul: f16 weights are not supported; use bf16 or f32");
  }
  if (weight.rows < 1 || weight.cols < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("oneDNN matmul: weight of ", weight.rows, " rows and ",
                     weight.cols, " columns; both must be at least 1"));
  }
  try {
    auto impl = std::make_unique<Impl>(weight);
    impl->Find(/*tokens=*/1);  // whether this CPU can do it at all
    return std::unique_ptr<OneDnnMatmul>(new OneDnnMatmul(std::move(impl)));
  } catch (const dnnl::error& error) {
    return StatusOf(error, weight, /*tokens=*/1);
  }
}

absl::Status OneDnnMatmul::Run(const float* x, int64_t tokens, float* y) {
  if (tokens < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "oneDNN matmul: ", tokens, " tokens; at least 1 is needed"));
  }
  try {
    Impl::Product& product = impl_->Find(tokens);
    // oneDNN's memory has no const; it only reads x.
    memory x_floats(
        memory::desc({tokens, impl_->view.cols}, memory::data_type::f32,
                     memory::format_tag::ab),
        impl_->engine, const_cast<float*>(x));
    memory y_floats(
        memory::desc({tokens, impl_->view.rows}, memory::data_type::f32,
                     memory::format_tag::ab),
        impl_->engine, y);
    if (product.rounded_x) {
      product.round_x.execute(impl_->stream, x_floats, product.rounded_x);
    }
    product.matmul.execute(
        impl_->stream,
        {{DNNL_ARG_SRC, product.rounded_x ? product.rounded_x : x_floats},
         {DNNL_ARG_WEIGHTS, product.weight},
         {DNNL_ARG_DST, y_floats}});
    impl_->stream.wait();
    return absl::OkStatus();
  } catch (const dnnl::error& error) {
    return StatusOf(error, impl_->view, tokens);
  }
}

}  // namespace switchyard::kernels
