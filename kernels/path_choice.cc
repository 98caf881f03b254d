#include "kernels/path_choice.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <random>

#include "absl/strings/str_cat.h"
#include "kernels/quantized.h"
#include "kernels/scalar/quantized.h"
#include "kernels/weight_codec.h"

namespace switchyard::kernels {
namespace {

constexpr int64_t kRows = 64;
constexpr int64_t kCols = 2048;
constexpr int kRepetitions = 5;
constexpr DType kFormats[] = {DType::kQ8, DType::kQ4};
constexpr int64_t kTokenCounts[] = {1, 2, 4, 8, 12, 16, 24, 32, 64, 128, 256};
constexpr int64_t kAlignment = 64;

// A matrix and rows of activations of small random numbers.
class Product {
 public:
  Product(DType dtype, int64_t rows, int64_t cols, int64_t tokens)
      : weights_(static_cast<size_t>(WeightBytes(dtype, rows, cols)) +
                 kAlignment),
        values_(static_cast<size_t>(tokens * PaddedColumns(cols))),
        scales_(static_cast<size_t>(tokens * NumGroups(cols))),
        sums_(scales_.size()),
        y_(static_cast<size_t>(tokens * rows)),
        rows_(rows),
        tokens_(tokens) {
    std::minstd_rand random(1);
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<float> floats(static_cast<size_t>(kPanelRows * cols));
    void* begin = weights_.data();
    size_t space = weights_.size();
    std::align(kAlignment, space - kAlignment, begin, space);
    auto* panel = static_cast<uint8_t*>(begin);
    weight_ = {panel, dtype, rows, cols};
    for (int64_t row = 0; row < rows; row += kPanelRows) {
      for (float& value : floats) value = uniform(random);
      QuantizePanel(dtype, floats.data(), std::min(kPanelRows, rows - row),
                    cols, panel);
      panel += PanelBytes(dtype, cols);
    }
    for (int64_t t = 0; t < tokens; ++t) {
      for (float& value : floats) value = uniform(random);
      ScalarQuantizeRow(floats.data(), cols,
                        values_.data() + t * PaddedColumns(cols),
                        scales_.data() + t * NumGroups(cols),
                        sums_.data() + t * NumGroups(cols));
    }
  }

  const std::vector<float>& Run(QuantizedMatmulKernel kernel, int64_t tokens) {
    kernel(weight_, 0, rows_,
           {values_.data(), scales_.data(), sums_.data(), weight_.cols}, tokens,
           y_.data(), rows_);
    return y_;
  }
  // All tokens.
  std::vector<float> Result(QuantizedMatmulKernel kernel) {
    std::fill(y_.begin(), y_.end(), 0.0f);
    return Run(kernel, tokens_);
  }

 private:
  std::vector<uint8_t> weights_;
  std::vector<int8_t> values_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
  std::vector<float> y_;
  const int64_t rows_;
  const int64_t tokens_;
  WeightView weight_;
};

// Set before threads compute, from main.
Paths chosen;

double Seconds(QuantizedMatmulKernel kernel, int64_t tokens, Product* product) {
  const auto start = std::chrono::steady_clock::now();
  product->Run(kernel, tokens);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
      .count();
}

std::string From(int64_t tokens, const char* format) {
  return tokens == PathChoice::kNever
             ? absl::StrCat("never for ", format)
             : absl::StrCat("from ", tokens, " token(s) of ", format);
}

}  // namespace

bool SameProducts(QuantizedMatmulKernel a, QuantizedMatmulKernel b) {
  for (const DType dtype : kFormats) {
    for (int64_t tokens = 1; tokens <= 40; ++tokens) {
      Product product(dtype, 33, 200, tokens);
      const std::vector<float> first = product.Result(a);
      const std::vector<float> second = product.Result(b);
      if (std::memcmp(first.data(), second.data(),
                      first.size() * sizeof(float)) != 0) {
        return false;
      }
    }
  }
  return true;
}

std::vector<PathTime> MeasurePaths(QuantizedMatmulKernel few,
                                   QuantizedMatmulKernel many) {
  std::vector<PathTime> times;
  for (const DType dtype : kFormats) {
    Product product(dtype, kRows, kCols, std::end(kTokenCounts)[-1]);
    for (const int64_t tokens : kTokenCounts) {
      PathTime time{dtype, tokens, 0, 0};
      for (int i = 0; i < kRepetitions; ++i) {
        const double few_seconds = Seconds(few, tokens, &product);
        const double many_seconds = Seconds(many, tokens, &product);
        time.few_seconds =
            i == 0 ? few_seconds : std::min(time.few_seconds, few_seconds);
        time.many_seconds =
            i == 0 ? many_seconds : std::min(time.many_seconds, many_seconds);
      }
      times.push_back(time);
    }
  }
  return times;
}

PathChoice ChoosePaths(const std::vector<PathTime>& times) {
  PathChoice choice = {PathChoice::kNever, PathChoice::kNever};
  // From the most tokens down, as long as `many` wins.
  bool wins[2] = {true, true};
  for (auto time = times.rbegin(); time != times.rend(); ++time) {
    const bool is_q8 = time->dtype == DType::kQ8;
    bool& still = wins[is_q8 ? 0 : 1];
    still = still && time->many_seconds < time->few_seconds;
    if (still) (is_q8 ? choice.q8_tokens : choice.q4_tokens) = time->tokens;
  }
  return choice;
}

void SetPaths(const Paths& paths) { chosen = paths; }

void QuantizedMatmulByPath(const WeightView& weight, int64_t row_begin,
                           int64_t row_end, const QuantizedRows& x,
                           int64_t tokens, float* y, int64_t y_stride) {
  const int64_t from = weight.dtype == DType::kQ8 ? chosen.choice.q8_tokens
                                                  : chosen.choice.q4_tokens;
  (tokens < from ? chosen.few : chosen.many)(weight, row_begin, row_end, x,
                                             tokens, y, y_stride);
}

std::string DescribeChoice(const PathChoice& choice) {
  return absl::StrCat(From(choice.q8_tokens, "q8"), ", ",
                      From(choice.q4_tokens, "q4"));
}

}  // namespace switchyard::kernels
