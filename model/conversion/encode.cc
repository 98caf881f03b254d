#include "model/conversion/encode.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/bf16.h"
#include "kernels/half.h"
#include "kernels/quantized.h"
#include "kernels/weight_codec.h"
#include "model/weight_values.h"

namespace switchyard::model {
namespace {

using kernels::DType;

// False if a value is infinite in `dtype`.
bool NarrowRows(DType dtype, const float* values, int64_t n, void* out) {
  uint8_t* const bytes = static_cast<uint8_t*>(out);
  bool finite = true;
  switch (dtype) {
    case DType::kF32:
      std::memcpy(bytes, values, n * sizeof(float));
      return true;
    case DType::kBF16:
    case DType::kBF16Dot:
      for (int64_t i = 0; i < n; ++i) {
        const uint16_t bits = kernels::Bf16OfFloat(values[i]);
        finite = finite && (bits & 0x7F80) != 0x7F80;
        std::memcpy(bytes + i * sizeof(bits), &bits, sizeof(bits));
      }
      return finite;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) {
        const uint16_t bits = kernels::HalfOfFloat(values[i]);
        finite = finite && (bits & 0x7C00) != 0x7C00;
        std::memcpy(bytes + i * sizeof(bits), &bits, sizeof(bits));
      }
      return finite;
    case DType::kQ8:
    case DType::kQ4:
      break;
  }
  SY_CHECK(false);
}

absl::Status NotEncodable(absl::string_view name, DType dtype,
                          const std::vector<float>& values) {
  for (const float value : values) {
    if (std::isfinite(value)) continue;
    return absl::DataLossError(absl::StrCat(
        "tensor ", name,
        " holds a NaN or an infinity: the source is damaged; fetch it again"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("tensor ", name, " holds a value too large for ",
                   DTypeName(dtype), ": leave it in its source's format"));
}

}  // namespace

DType StoredDType(WeightFormat format, DType source) {
  switch (format) {
    case WeightFormat::kSource:
      return source;
    case WeightFormat::kBF16:
      return DType::kBF16;
    case WeightFormat::kQ8:
      return DType::kQ8;
    case WeightFormat::kQ4:
      return DType::kQ4;
    case WeightFormat::kBF16Dot:
      return DType::kBF16Dot;
  }
  SY_CHECK(false);
}

absl::Status EncodeRows(const SourceTensor& tensor, absl::string_view name,
                        DType dtype, int64_t begin, int64_t count, void* out) {
  const int64_t cols = tensor.cols();
  uint8_t* to = static_cast<uint8_t*>(out);
  std::vector<float> values(std::min<int64_t>(count, kernels::kPanelRows) *
                            cols);
  for (int64_t done = 0; done < count; done += kernels::kPanelRows) {
    const int64_t rows = std::min<int64_t>(count - done, kernels::kPanelRows);
    values.resize(rows * cols);
    tensor.ReadRows(begin + done, rows, values.data());
    bool good = true;
    if (kernels::IsQuantized(dtype)) {
      good = kernels::QuantizePanel(dtype, values.data(), rows, cols, to);
    } else {
      for (const float value : values) good = good && std::isfinite(value);
      good = good && NarrowRows(dtype, values.data(), rows * cols, to);
    }
    if (!good) return NotEncodable(name, dtype, values);
    to += kernels::WeightBytes(dtype, rows, cols);
  }
  return absl::OkStatus();
}

}  // namespace switchyard::model
