// switchyard-bench-kernels: what each body of the kernels reaches, beside what
// the machine can do at most (memory bandwidth and multiply-adds of one thread,
// measured in the same run), on one thread.
//
//   switchyard-bench-kernels [--seconds=0.5] [--only=quantized] [--isa=avx2]
//
// Products of quantised weights are measured on one thread and on two.
//
// Matrix products walk over many matrices, more than the caches hold, as a
// server does that reads other experts for every token.

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/aligned_buffer.h"
#include "base/command_line.h"
#include "base/compute_pool.h"
#include "base/huge_page_memory.h"
#include "kernels/amx_kernels.h"
#include "kernels/kernel_table.h"
#include "kernels/onednn/matmul.h"
#include "switchyard/bench/limits/limits.h"
#include "tests/bench/quantized_bench.h"

ABSL_FLAG(double, seconds, 0.5, "Time for each number; the best run counts.");
ABSL_FLAG(std::string, only, "",
          "Measure one part: quantized, float, attention or onednn; empty: "
          "all.");
ABSL_FLAG(std::string, isa, "",
          "Measure one table of the kernels; empty: all that this CPU has.");
ABSL_FLAG(bool, smoke, false,
          "Run everything once on little data, to see that it works.");
ABSL_FLAG(bool, slow, false, "Measure the scalar reference too.");

namespace switchyard::bench {
namespace {

using kernels::DType;
using kernels::KernelTable;
using kernels::OneDnnMatmul;
using kernels::WeightView;

constexpr char kCommit[] =
#include "commit.inc"
    ;

// One expert's gate_proj or up_proj in Qwen3-Next-80B-A3B.
constexpr int64_t kRows = 512;
constexpr int64_t kCols = 2048;

struct Limits {
  double read = 0;  // bytes / s
  double fma = 0;   // operations / s
};

struct Settings {
  double seconds = 0;
  int64_t weight_bytes = 0;  // of all matrices together
  int64_t keys = 0;          // of attention
  int64_t heads = 0;         // states of the delta rule
  std::vector<int64_t> token_counts;
};

std::vector<float> RandomFloats(int64_t n) {
  std::mt19937 rng(1);
  std::uniform_real_distribution<float> distribution(-1.0f, 1.0f);
  std::vector<float> floats(static_cast<size_t>(n));
  for (float& value : floats) value = distribution(rng);
  return floats;
}

// Of one thread with the registers of that table; 0 for the scalar one.
double FmaPeak(const std::string& table, double seconds) {
  if (table == "scalar") return 0;
  return MeasureOperations(
             table == "avx2" ? Operation::kFmaAvx2 : Operation::kFmaAvx512,
             /*threads=*/1, seconds)
      .best;
}

// Of products of bf16.
double Bf16Peak(const std::string& table, double seconds) {
  return table == "avx512bf16"
             ? MeasureOperations(Operation::kBf16Dot, /*threads=*/1, seconds)
                   .best
             : FmaPeak(table, seconds);
}

std::string Share(double value, double limit) {
  return limit == 0 ? "    -" : absl::StrFormat("%4.0f%%", 100 * value / limit);
}

// One line: time per call, then what it read and computed, with shares of the
// limits.
void Print(const char* body, const std::string& what, double seconds,
           double bytes, double operations, const Limits& limits) {
  absl::PrintF("%-10s %-34s %10.2f us %7.1f GB/s %s %7.1f Gop/s %s\n", body,
               what, seconds * 1e6, bytes / seconds * 1e-9,
               Share(bytes / seconds, limits.read), operations / seconds * 1e-9,
               Share(operations / seconds, limits.fma));
}

// Many weight matrices of one type, one after another.
class Weights {
 public:
  Weights(DType dtype, int64_t total_bytes)
      : dtype_(dtype),
        bytes_each_(kRows * kCols *
                    static_cast<int64_t>(kernels::DTypeBytes(dtype))),
        count_(std::max<int64_t>(1, total_bytes / bytes_each_)),
        memory_(static_cast<size_t>(count_ * bytes_each_)) {
    // The same random matrix everywhere: times do not depend on the values, as
    // long as none is subnormal.
    const std::vector<float> floats = RandomFloats(kRows * kCols);
    for (int64_t i = 0; i < kRows * kCols; ++i) {
      const char* const value = reinterpret_cast<const char*>(&floats[i]);
      const auto size = static_cast<int64_t>(kernels::DTypeBytes(dtype));
      std::memcpy(memory_.data() + i * size, value + 4 - size, size);
    }
    for (int64_t m = 1; m < count_; ++m) {
      std::memcpy(memory_.data() + m * bytes_each_, memory_.data(),
                  static_cast<size_t>(bytes_each_));
    }
  }

  int64_t bytes_each() const { return bytes_each_; }
  int64_t count() const { return count_; }
  WeightView view(int64_t index) const {
    return {memory_.data() + index * bytes_each_, dtype_, kRows, kCols};
  }

 private:
  const DType dtype_;
  const int64_t bytes_each_;
  const int64_t count_;
  std::vector<char> memory_;
};

const char* NameOf(DType dtype) {
  return dtype == DType::kF32       ? "f32"
         : dtype == DType::kBF16Dot ? "bf16dot"
                                    : "bf16";
}

std::string MatmulName(DType dtype, int64_t tokens) {
  return absl::StrFormat("matmul %-7s T=%-3d [%d, %d]", NameOf(dtype), tokens,
                         kRows, kCols);
}

// How many products to time together: long enough for the clock, and too short
// to be interrupted often.
int CallsAtATime(int64_t tokens) { return tokens < 16 ? 4 : 1; }

// body(weight, tokens) for each number of tokens.
template <typename Body>
void BenchMatmulOf(DType dtype, const char* table, const Settings& settings,
                   const Limits& limits, Body body) {
  const Weights weights(dtype, settings.weight_bytes);
  for (const int64_t tokens : settings.token_counts) {
    const int calls = CallsAtATime(tokens);
    int64_t next = 0;
    const double seconds = BestSeconds(settings.seconds, [&] {
      for (int i = 0; i < calls; ++i) {
        body(weights.view(next++ % weights.count()), tokens);
      }
    });
    Print(table, MatmulName(dtype, tokens), seconds / calls,
          static_cast<double>(weights.bytes_each()),
          2.0 * static_cast<double>(tokens * kRows * kCols), limits);
  }
}

void BenchMatmul(const KernelTable& table, const Settings& settings,
                 const Limits& limits) {
  const int64_t most = settings.token_counts.back();
  const std::vector<float> x = RandomFloats(most * kCols);
  std::vector<float> y(most * kRows);
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    BenchMatmulOf(dtype, table.name, settings, limits,
                  [&](const WeightView& weight, int64_t tokens) {
                    table.matmul(weight, 0, kRows, x.data(), kCols, tokens,
                                 y.data(), kRows);
                  });
  }
}

// The activations' rounding is measured by itself: an expert's rows are rounded
// once for all its matrices.
void BenchBf16Matmul(const KernelTable& table, const Settings& settings,
                     const Limits& limits) {
  const int64_t most = settings.token_counts.back();
  const std::vector<float> floats = RandomFloats(most * kCols);
  std::vector<uint16_t> x(floats.size());
  std::vector<float> y(most * kRows);
  const double rounding = BestSeconds(settings.seconds, [&] {
    table.round_to_bf16(floats.data(), most * kCols, x.data());
  });
  Print(table.name, absl::StrFormat("round_to_bf16 [%d, %d]", most, kCols),
        rounding, 0, 0, {});
  BenchMatmulOf(DType::kBF16Dot, table.name, settings, limits,
                [&](const WeightView& weight, int64_t tokens) {
                  table.bf16_matmul(weight, 0, kRows, x.data(), kCols, tokens,
                                    y.data(), kRows);
                });
}

absl::Status BenchOneDnn(const Settings& settings, const Limits& limits) {
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    const Weights weights(dtype, settings.weight_bytes);
    std::vector<std::unique_ptr<OneDnnMatmul>> products;
    for (int64_t m = 0; m < weights.count(); ++m) {
      auto product = OneDnnMatmul::Create(weights.view(m));
      if (absl::IsUnimplemented(product.status())) break;
      if (!product.ok()) return product.status();
      products.push_back(*std::move(product));
    }
    if (products.empty()) {
      absl::PrintF("onednn  %s: not on this CPU\n", NameOf(dtype));
      continue;
    }
    for (const int64_t tokens : settings.token_counts) {
      const std::vector<float> x = RandomFloats(tokens * kCols);
      std::vector<float> y(tokens * kRows);
      absl::Status status;
      for (const auto& product : products) {  // make the primitives
        status.Update(product->Run(x.data(), tokens, y.data()));
      }
      const int calls = CallsAtATime(tokens);
      size_t next = 0;
      const double seconds = BestSeconds(settings.seconds, [&] {
        for (int i = 0; i < calls; ++i) {
          status.Update(products[next++ % products.size()]->Run(
              x.data(), tokens, y.data()));
        }
      });
      if (!status.ok()) return status;
      Print("onednn", MatmulName(dtype, tokens), seconds / calls,
            static_cast<double>(weights.bytes_each()),
            2.0 * static_cast<double>(tokens * kRows * kCols), limits);
    }
  }
  return absl::OkStatus();
}

// One token's step over the value heads of some layers, states from memory; and
// one token after another on sixteen columns that stay in the L1 cache.
void BenchDeltaRule(const KernelTable& table, const Settings& settings,
                    const Limits& limits) {
  constexpr int64_t kDk = 128, kDv = 128;
  const std::vector<float> q = RandomFloats(kDk);
  const std::vector<float> v = RandomFloats(kDv);
  std::vector<float> k = RandomFloats(kDk);
  table.l2_norm(k.data(), 1e-6f, 1.0f, kDk, k.data());
  std::vector<float> states = RandomFloats(settings.heads * kDk * kDv);
  std::vector<float> out(kDv);
  const auto operations = [](int64_t columns) {
    return 2.0 * 3 * kDk * static_cast<double>(columns);
  };

  const double step = BestSeconds(settings.seconds, [&] {
    for (int64_t head = 0; head < settings.heads; ++head) {
      table.delta_rule_step(q.data(), k.data(), v.data(), 0.99f, 0.5f, kDk, kDv,
                            kDv, states.data() + head * kDk * kDv, out.data());
    }
  });
  // Read once and written once.
  Print(table.name, "delta_rule_step [128, 128]",
        step / static_cast<double>(settings.heads), 2.0 * 4 * kDk * kDv,
        operations(kDv), limits);

  constexpr int64_t kColumns = 16, kTokens = 100;
  const double stream = BestSeconds(settings.seconds, [&] {
    for (int64_t t = 0; t < kTokens; ++t) {
      table.delta_rule_step(q.data(), k.data(), v.data(), 0.99f, 0.5f, kDk,
                            kColumns, kDv, states.data(), out.data());
    }
  });
  Print(table.name, "delta_rule_step [128, 16] in L1", stream / kTokens,
        2.0 * 4 * kDk * kColumns, operations(kColumns), {0, limits.fma});
}

// Eight query heads on one KV head's cache, page by page: one token's from
// memory, as decoding reads it, and eight tokens' from the L2 cache, as a
// prompt's do.
void BenchAttention(const KernelTable& table, const Settings& settings,
                    const Limits& limits) {
  constexpr int64_t kHeads = 8, kDim = 256, kPage = 64, kTokens = 8;
  constexpr kernels::KvDType kDTypes[] = {
      kernels::KvDType::kF32, kernels::KvDType::kBF16, kernels::KvDType::kI8};
  constexpr const char* kNames[] = {"f32", "bf16", "i8"};
  const int64_t n = settings.keys / kPage * kPage;
  const std::vector<float> row = RandomFloats(kDim);
  AlignedBuffer q(kTokens * kHeads * kDim);
  std::copy_n(row.data(), kDim, q.data());
  AlignedBuffer scores(static_cast<size_t>(kTokens * kHeads * n));
  AlignedBuffer y(kTokens * kHeads * kDim);
  for (size_t d = 0; d < std::size(kDTypes); ++d) {
    const int64_t row_bytes = kernels::KvRowBytes(kDTypes[d], kDim);
    const auto memory = HugePageMemory::Reserve(n * row_bytes);
    if (!memory.ok()) {
      absl::FPrintF(stderr, "%s\n", memory.status().ToString());
      return;
    }
    char* const cache = reinterpret_cast<char*>((*memory)->data());
    for (int64_t j = 0; j < n; ++j) {
      kernels::EncodeKvRow(kDTypes[d], row.data(), kDim, cache + j * row_bytes);
    }
    const auto page_at = [&](int64_t j) {
      return kernels::KvRows{
          .data = cache + j * row_bytes,
          .dtype = kDTypes[d],
          .next = j + kPage < n ? cache + (j + kPage) * row_bytes : nullptr};
    };
    const auto measure = [&](int64_t tokens, int64_t keys, auto body) {
      const double operations =
          2.0 * static_cast<double>(tokens * kHeads * keys * kDim);
      const char* const where = tokens == 1 ? "" : " in L2";
      const double bytes =
          tokens == 1 ? static_cast<double>(keys * row_bytes) : 0;
      const int64_t repeat = n / keys;
      const auto print = [&](const char* what, bool is_scores) {
        const double seconds = BestSeconds(settings.seconds, [&] {
          for (int64_t r = 0; r < repeat; ++r) {
            for (int64_t j = 0; j < keys; j += kPage) {
              body(is_scores, j);
            }
          }
        });
        Print(table.name,
              absl::StrFormat("%s %s %d x %d%s", what, kNames[d],
                              tokens * kHeads, keys, where),
              seconds / static_cast<double>(repeat), bytes, operations, limits);
      };
      print("scores", true);
      print("values", false);
    };
    measure(1, n, [&](bool is_scores, int64_t j) {
      if (is_scores) {
        table.attention_scores(q.data(), kHeads, page_at(j), kPage, kDim,
                               0.0625f, scores.data() + j, n);
      } else {
        table.attention_values(scores.data() + j, n, kHeads, page_at(j), kPage,
                               kDim, y.data());
      }
    });
    const int64_t near = std::min<int64_t>(n, 512);  // keys that stay in L2
    measure(kTokens, near, [&](bool is_scores, int64_t j) {
      if (is_scores) {
        table.attention_scores(q.data(), kTokens * kHeads, page_at(j), kPage,
                               kDim, 0.0625f, scores.data() + j, near);
      } else {
        table.attention_values(scores.data() + j, near, kTokens * kHeads,
                               page_at(j), kPage, kDim, y.data());
      }
    });
  }
  float sum = 0;
  Print(table.name, absl::StrFormat("exp_sub_max %d scores", n),
        BestSeconds(settings.seconds,
                    [&] { table.exp_sub_max(scores.data(), n, &sum); }),
        4.0 * static_cast<double>(n), 0, {});
}

// What else a layer does, from the caches.
void BenchElementwise(const KernelTable& table, const Settings& settings) {
  constexpr int64_t kHidden = 2048, kChannels = 8192, kTaps = 4;
  constexpr int kCalls = 20;
  const std::vector<float> x = RandomFloats(kChannels);
  const std::vector<float> w = RandomFloats(kChannels * kTaps);
  std::vector<float> tail = RandomFloats(kChannels * (kTaps - 1));
  std::vector<float> y(kChannels);
  const auto measure = [&](const char* what, double bytes, auto body) {
    const double seconds = BestSeconds(settings.seconds / 2, [&] {
      for (int i = 0; i < kCalls; ++i) body();
    });
    Print(table.name, what, seconds / kCalls, bytes, 0, {});
  };
  measure("rms_norm 2048", 4.0 * kHidden, [&] {
    table.rms_norm(x.data(), w.data(), 1.0f, 1e-6f, kHidden, y.data());
  });
  measure("silu_mul 2048", 4.0 * kHidden,
          [&] { table.silu_mul(x.data(), w.data(), kHidden, y.data()); });
  measure("sigmoid_mul 2048", 4.0 * kHidden,
          [&] { table.sigmoid_mul(x.data(), w.data(), kHidden, y.data()); });
  measure("conv_step 8192 x 4", 4.0 * kChannels * kTaps, [&] {
    table.conv_step(w.data(), kTaps, x.data(), tail.data(), kChannels,
                    y.data());
  });
}

void BenchFloat(const KernelTable& table, const Settings& settings,
                const Limits& limits) {
  BenchMatmul(table, settings, limits);
  BenchDeltaRule(table, settings, limits);
  BenchElementwise(table, settings);
}

void BenchQuantized(const KernelTable& table, const Settings& settings,
                    bool smoke) {
  QuantizedSettings quantized = {
      settings.seconds, settings.weight_bytes, {1, 2, 4, 8, 16, 32, 64, 256}};
  if (smoke) quantized.token_counts = {1, 9};
  absl::PrintF("\n%s: quantised weights\n", table.name);
  for (const int threads : {1, 2}) {
    if (threads <= AvailableCpus()) {
      BenchQuantizedMatmul(table, threads, quantized);
    }
  }
  BenchQuantize(table, quantized);
}

// VNNI's body and AMX's, where there is such, and what is chosen.
void BenchAmxPaths() {
  const absl::StatusOr<kernels::AmxKernels> amx = kernels::PrepareAmxKernels();
  if (!amx.ok()) {
    absl::PrintF("\namx: %s\n", amx.status().message());
    return;
  }
  absl::PrintF("\namx, [64, 2048] from the caches: tiles %s\n",
               kernels::DescribeChoice(amx->choice));
  for (const kernels::PathTime& time : amx->times) {
    absl::PrintF("matmul %s T=%-3d  without tiles %8.2f us, with %8.2f us\n",
                 time.dtype == DType::kQ8 ? "q8" : "q4", time.tokens,
                 time.few_seconds * 1e6, time.many_seconds * 1e6);
  }
}

// On one matrix that stays in the caches, which favours oneDNN.
absl::Status BenchOneDnnQuantized(const Settings& settings) {
  for (const int64_t tokens : settings.token_counts) {
    absl::StatusOr<double> seconds =
        OneDnnQuantizedSeconds(settings.seconds, tokens);
    if (absl::IsUnimplemented(seconds.status())) {
      absl::PrintF("onednn  q8: not on this CPU\n");
      break;
    }
    if (!seconds.ok()) return seconds.status();
    Print("onednn", absl::StrFormat("matmul q8      T=%-3d", tokens), *seconds,
          0, 2.0 * static_cast<double>(tokens * kRows * kCols), {});
  }
  return absl::OkStatus();
}

absl::Status Run() {
  Settings settings;
  settings.seconds = absl::GetFlag(FLAGS_seconds);
  settings.weight_bytes = int64_t{256} << 20;
  settings.keys = 65536;  // 16 to 64 MiB: more than the caches hold
  settings.heads = 512;
  settings.token_counts = {1, 2, 4, 8, 32, 128};
  const bool smoke = absl::GetFlag(FLAGS_smoke);
  if (smoke) settings = {0, 0, 64, 2, {1, 5}};
  const auto wanted = [only = absl::GetFlag(FLAGS_only)](const char* part) {
    return only.empty() || only == part;
  };

  const double read =
      smoke ? 0
            : MeasureRead(/*threads=*/1, PageSize::kHuge, 2 * settings.seconds)
                  .best;
  absl::PrintF("commit %s, %s\n", kCommit, CpuName());
  absl::PrintF("one thread reads at most %.1f GB/s from memory\n", read * 1e-9);
  const std::string isa = absl::GetFlag(FLAGS_isa);
  const KernelTable* previous = nullptr;
  for (const KernelTable* table : kernels::AvailableKernels()) {
    const bool skip = isa.empty() && table == &kernels::kScalarKernels &&
                      !smoke && !absl::GetFlag(FLAGS_slow);
    if (skip || (!isa.empty() && isa != table->name)) continue;
    // What two tables share is measured once, with the first of them.
    const bool shared =
        previous != nullptr && previous->matmul == table->matmul;
    const bool same_bf16 =
        previous != nullptr && previous->bf16_matmul == table->bf16_matmul;
    const bool same_quantized =
        previous != nullptr &&
        previous->quantized_matmul == table->quantized_matmul;
    previous = table;
    if (!shared && (wanted("float") || wanted("attention"))) {
      const Limits limits = {
          read, smoke ? 0 : FmaPeak(table->name, settings.seconds)};
      absl::PrintF("\n%s: at most %.1f Gop/s of fused multiply-adds in f32\n",
                   table->name, limits.fma * 1e-9);
      if (wanted("float")) BenchFloat(*table, settings, limits);
      if (wanted("attention")) BenchAttention(*table, settings, limits);
    }
    if (!same_bf16 && wanted("float")) {
      const Limits limits = {
          read, smoke ? 0 : Bf16Peak(table->name, settings.seconds)};
      absl::PrintF("\n%s: at most %.1f Gop/s of products of bf16\n",
                   table->name, limits.fma * 1e-9);
      BenchBf16Matmul(*table, settings, limits);
    }
    if (!same_quantized && wanted("quantized")) {
      BenchQuantized(*table, settings, smoke);
    }
  }
  if (wanted("quantized")) {
    BenchQuantizePanel({settings.seconds, 0, {}});
    BenchAmxPaths();
  }
  if (!wanted("onednn")) return absl::OkStatus();
  absl::PrintF(
      "\noneDNN, for comparison (bf16 may use dot products of its own)\n");
  const absl::Status status = BenchOneDnn(settings, {read, 0});
  return status.ok() ? BenchOneDnnQuantized(settings) : status;
}

// oneDNN's threads come from OpenMP, which reads this when it is loaded.
void RestartWithOneOpenMpThread(char** argv) {
  if (getenv("OMP_NUM_THREADS") != nullptr) return;
  setenv("OMP_NUM_THREADS", "1", /*overwrite=*/0);
  execv("/proc/self/exe", argv);
  std::perror("cannot start again with OMP_NUM_THREADS=1");
}

}  // namespace
}  // namespace switchyard::bench

int main(int argc, char** argv) {
  switchyard::bench::RestartWithOneOpenMpThread(argv);
  const auto arguments = switchyard::ParseCommandLine(
      argc, argv, "Measures the kernels: the best of many short runs.");
  if (!arguments.ok()) {
    absl::FPrintF(stderr, "%s\n", arguments.status().ToString());
    return 2;
  }
  const absl::Status status = switchyard::bench::Run();
  if (!status.ok()) absl::FPrintF(stderr, "%s\n", status.ToString());
  return status.ok() ? 0 : 1;
}
