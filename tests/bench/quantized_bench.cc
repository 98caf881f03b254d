#include "tests/bench/quantized_bench.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "kernels/onednn/quantized_matmul.h"
#include "kernels/quantized.h"
#include "kernels/weight_codec.h"
#include "switchyard/bench/limits/throughput.h"

namespace switchyard::bench {
namespace {

using kernels::DType;
using kernels::KernelTable;
using kernels::WeightView;

// One expert's gate_proj or up_proj in Qwen3-Next-80B-A3B.
constexpr int64_t kRows = 512;
constexpr int64_t kCols = 2048;

const char* NameOf(DType dtype) { return dtype == DType::kQ8 ? "q8" : "q4"; }

std::vector<float> NormalFloats(int64_t n) {
  std::mt19937 rng(1);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> floats(static_cast<size_t>(n));
  for (float& value : floats) value = normal(rng);
  return floats;
}

// Many quantised matrices, the same one over and over, in huge pages as far as
// the system has some.
class Matrices {
 public:
  Matrices(DType dtype, int64_t total_bytes)
      : dtype_(dtype),
        bytes_each_(kernels::WeightBytes(dtype, kRows, kCols)),
        count_(std::max<int64_t>(1, total_bytes / bytes_each_)),
        bytes_((count_ * bytes_each_ + kHugePage - 1) / kHugePage * kHugePage),
        memory_(static_cast<uint8_t*>(
            std::aligned_alloc(kHugePage, static_cast<size_t>(bytes_)))) {
    SY_CHECK(memory_ != nullptr);
    madvise(memory_, static_cast<size_t>(bytes_), MADV_HUGEPAGE);
    const std::vector<float> floats = NormalFloats(kRows * kCols);
    for (int64_t r = 0; r < kRows; r += kernels::kPanelRows) {
      SY_CHECK(kernels::QuantizePanel(
          dtype, floats.data() + r * kCols, kernels::kPanelRows, kCols,
          memory_ +
              r / kernels::kPanelRows * kernels::PanelBytes(dtype, kCols)));
    }
    for (int64_t m = 1; m < count_; ++m) {
      std::memcpy(memory_ + m * bytes_each_, memory_,
                  static_cast<size_t>(bytes_each_));
    }
  }
  ~Matrices() { std::free(memory_); }
  Matrices(const Matrices&) = delete;
  Matrices& operator=(const Matrices&) = delete;

  int64_t bytes_each() const { return bytes_each_; }
  WeightView Next() {
    return {memory_ + next_++ % count_ * bytes_each_, dtype_, kRows, kCols};
  }

 private:
  static constexpr int64_t kHugePage = int64_t{2} << 20;
  const DType dtype_;
  const int64_t bytes_each_;
  const int64_t count_;
  const int64_t bytes_;
  uint8_t* const memory_;
  int64_t next_ = 0;
};

// Some quantised rows that own their memory.
class Activations {
 public:
  Activations(const KernelTable& table, int64_t tokens)
      : values_(static_cast<size_t>(tokens * kCols)),
        scales_(static_cast<size_t>(tokens * kernels::NumGroups(kCols))),
        sums_(scales_.size()) {
    const std::vector<float> x = NormalFloats(tokens * kCols);
    for (int64_t t = 0; t < tokens; ++t) {
      table.quantize_row(x.data() + t * kCols, kCols,
                         values_.data() + t * kCols,
                         scales_.data() + t * kernels::NumGroups(kCols),
                         sums_.data() + t * kernels::NumGroups(kCols));
    }
  }
  kernels::QuantizedRows view() const {
    return {values_.data(), scales_.data(), sums_.data(), kCols};
  }

 private:
  std::vector<int8_t> values_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
};

struct ThreadLimits {
  Rate read;  // bytes / s
  Rate int8;  // operations / s
};

ThreadLimits MeasureLimits(int threads, double seconds) {
  return {MeasureRead(threads, PageSize::kHuge, 2 * seconds),
          MeasureOperations(BestInt8(), threads, seconds)};
}

double Percent(double value, double limit) {
  return limit == 0 ? 0 : 100 * value / limit;
}

}  // namespace

void BenchQuantizedMatmul(const KernelTable& table, int threads,
                          const QuantizedSettings& settings) {
  const bool measure = settings.seconds > 0;
  const ThreadLimits before =
      measure ? MeasureLimits(threads, settings.seconds) : ThreadLimits{};
  const auto print_limits = [threads](const ThreadLimits& limits) {
    absl::PrintF(
        "%d thread(s) read at most %.1f GB/s (median %.1f) and reach %.1f "
        "Gop/s (median %.1f) of %s\n",
        threads, limits.read.best * 1e-9, limits.read.median * 1e-9,
        limits.int8.best * 1e-9, limits.int8.median * 1e-9,
        OperationName(BestInt8()));
  };
  print_limits(before);
  for (const DType dtype : {DType::kQ8, DType::kQ4}) {
    std::vector<std::unique_ptr<Matrices>> weights;
    for (int i = 0; i < threads; ++i) {
      weights.push_back(
          std::make_unique<Matrices>(dtype, settings.weight_bytes));
    }
    for (const int64_t tokens : settings.token_counts) {
      const Activations x(table, tokens);
      std::vector<std::vector<float>> y(
          threads, std::vector<float>(static_cast<size_t>(tokens * kRows)));
      const Rate calls =
          MeasureThroughput(threads, settings.seconds, 1, [&](int thread) {
            table.quantized_matmul(weights[thread]->Next(), 0, kRows, x.view(),
                                   tokens, y[thread].data(), kRows);
          });
      const auto bytes = static_cast<double>(weights[0]->bytes_each());
      const auto operations = 2.0 * static_cast<double>(tokens * kRows * kCols);
      absl::PrintF(
          "%-10s %d thr matmul %s T=%-3d [%d, %d] %6.1f GB/s %4.0f%% (median "
          "%6.1f) %7.1f Gop/s %4.0f%% (median %7.1f)\n",
          table.name, threads, NameOf(dtype), tokens, kRows, kCols,
          calls.best * bytes * 1e-9,
          Percent(calls.best * bytes, before.read.best),
          calls.median * bytes * 1e-9, calls.best * operations * 1e-9,
          Percent(calls.best * operations, before.int8.best),
          calls.median * operations * 1e-9);
    }
  }
  if (measure) print_limits(MeasureLimits(threads, settings.seconds));
}

void BenchQuantize(const KernelTable& table,
                   const QuantizedSettings& settings) {
  constexpr int kCalls = 20;
  const std::vector<float> x = NormalFloats(kCols);
  std::vector<int8_t> values(kCols);
  std::vector<float> scales(kernels::NumGroups(kCols));
  std::vector<int32_t> sums(kernels::NumGroups(kCols));
  const double seconds = BestSeconds(settings.seconds, [&] {
    for (int i = 0; i < kCalls; ++i) {
      table.quantize_row(x.data(), kCols, values.data(), scales.data(),
                         sums.data());
    }
  });
  absl::PrintF("%-10s quantize_row %d %.2f us\n", table.name, kCols,
               seconds / kCalls * 1e6);
  constexpr int64_t kWeights = kernels::kPanelRows * kernels::kBlockColumns;
  const std::vector<float> weights = NormalFloats(kWeights);
  for (const DType dtype : {DType::kQ8, DType::kQ4}) {
    std::vector<uint8_t> block(kernels::BlockBytes(dtype));
    const double block_seconds = BestSeconds(settings.seconds, [&] {
      for (int i = 0; i < kCalls; ++i) {
        SY_CHECK(table.quantize_block(dtype, weights.data(), block.data()));
      }
    });
    absl::PrintF("%-10s quantize_block %s %.3f G weights/s\n", table.name,
                 NameOf(dtype),
                 static_cast<double>(kCalls * kWeights) / block_seconds * 1e-9);
  }
}

void BenchQuantizePanel(const QuantizedSettings& settings) {
  const std::vector<float> weights = NormalFloats(kernels::kPanelRows * kCols);
  for (const DType dtype : {DType::kQ8, DType::kQ4}) {
    std::vector<uint8_t> panel(kernels::PanelBytes(dtype, kCols));
    const double seconds = BestSeconds(settings.seconds, [&] {
      SY_CHECK(kernels::QuantizePanel(
          dtype, weights.data(), kernels::kPanelRows, kCols, panel.data()));
    });
    absl::PrintF(
        "QuantizePanel %s %.3f G weights/s\n", NameOf(dtype),
        static_cast<double>(kernels::kPanelRows * kCols) / seconds * 1e-9);
  }
}

absl::StatusOr<double> OneDnnQuantizedSeconds(double seconds, int64_t tokens) {
  Matrices weights(DType::kQ8, /*total_bytes=*/0);
  const Activations x(kernels::Kernels(), tokens);
  std::vector<float> y(static_cast<size_t>(tokens * kRows));
  auto product = kernels::OneDnnQuantizedMatmul::Create(weights.Next(), tokens);
  if (!product.ok()) return product.status();
  absl::Status status;
  const double best = BestSeconds(
      seconds, [&] { status.Update((*product)->Run(x.view(), y.data())); });
  if (!status.ok()) return status;
  return best;
}

}  // namespace switchyard::bench
