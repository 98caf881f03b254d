// Which table a process runs.

#include "kernels/kernel_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/amx_kernels.h"

namespace switchyard::kernels {
namespace {

using ::testing::HasSubstr;

TEST(KernelTableTest, ScalarIsAlwaysThereAndFirst) {
  const std::vector<const KernelTable*> tables = AvailableKernels();
  ASSERT_FALSE(tables.empty());
  EXPECT_EQ(tables.front(), &kScalarKernels);
  EXPECT_STREQ(tables.front()->name, "scalar");
}

TEST(KernelTableTest, EveryTableIsComplete) {
  for (const KernelTable* table : AvailableKernels()) {
    SCOPED_TRACE(table->name);
    EXPECT_NE(table->matmul, nullptr);
    EXPECT_NE(table->quantize_block, nullptr);
    EXPECT_NE(table->quantize_row, nullptr);
    EXPECT_NE(table->quantized_matmul, nullptr);
    EXPECT_NE(table->round_to_bf16, nullptr);
    EXPECT_NE(table->bf16_matmul, nullptr);
    EXPECT_NE(table->widen, nullptr);
    EXPECT_NE(table->dot, nullptr);
    EXPECT_NE(table->axpy, nullptr);
    EXPECT_NE(table->attention_scores, nullptr);
    EXPECT_NE(table->attention_values, nullptr);
    EXPECT_NE(table->rms_norm, nullptr);
    EXPECT_NE(table->l2_norm, nullptr);
    EXPECT_NE(table->silu_mul, nullptr);
    EXPECT_NE(table->sigmoid_mul, nullptr);
    EXPECT_NE(table->exp_sub_max, nullptr);
    EXPECT_NE(table->softmax_weights, nullptr);
    EXPECT_NE(table->rope, nullptr);
    EXPECT_NE(table->conv_step, nullptr);
    EXPECT_NE(table->delta_rule_step, nullptr);
  }
}

TEST(KernelTableTest, SelectsEveryAvailableTableByName) {
  for (const KernelTable* table : AvailableKernels()) {
    EXPECT_TRUE(SelectKernels(table->name).ok());
    EXPECT_EQ(&Kernels(), table);
  }
  EXPECT_TRUE(SelectKernels("auto").ok());
  EXPECT_EQ(&Kernels(), AvailableKernels().back());
}

TEST(KernelTableTest, RefusesAnUnknownName) {
  ASSERT_TRUE(SelectKernels("scalar").ok());
  const absl::Status status = SelectKernels("avx1024");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("avx1024"));
  EXPECT_EQ(&Kernels(), &kScalarKernels) << "the choice must stand";
  EXPECT_EQ(SelectKernels("").code(), absl::StatusCode::kInvalidArgument);
}

TEST(KernelTableTest, RefusesWhatTheCpuCannotRun) {
  for (const char* isa : {"avx2", "avx512", "avx512vnni", "avx512bf16"}) {
    bool available = false;
    for (const KernelTable* table : AvailableKernels()) {
      available = available || std::string(table->name) == isa;
    }
    EXPECT_EQ(SelectKernels(isa).code(),
              available ? absl::StatusCode::kOk
                        : absl::StatusCode::kFailedPrecondition);
  }
}

// No table of "auto": somebody has to ask for it.
TEST(KernelTableTest, AmxIsRefusedInWordsWhereThereIsNone) {
  ASSERT_TRUE(SelectKernels("scalar").ok());
  const absl::StatusOr<AmxKernels> amx = PrepareAmxKernels();
  const absl::Status status = SelectKernels("amx");
  EXPECT_EQ(status.code(), amx.status().code());
  if (amx.ok()) {
    EXPECT_EQ(&Kernels(), amx->table);
    EXPECT_STREQ(amx->table->name, "amx");
  } else {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("use --isa=auto"));
    EXPECT_EQ(&Kernels(), &kScalarKernels) << "the choice must stand";
  }
  for (const KernelTable* table : AvailableKernels()) {
    EXPECT_STRNE(table->name, "amx");
  }
}

// Under ThreadSanitizer: the first callers may come together.
TEST(KernelTableTest, ThreadsAgree) {
  constexpr int kThreads = 8;
  std::vector<const KernelTable*> seen(kThreads);
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&seen, i] { seen[i] = &Kernels(); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const KernelTable* table : seen) EXPECT_EQ(table, seen[0]);
}

}  // namespace
}  // namespace switchyard::kernels
