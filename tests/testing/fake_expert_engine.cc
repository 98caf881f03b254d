#include "tests/testing/fake_expert_engine.h"

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/bf16.h"
#include "kernels/quantized.h"
#include "tests/testing/fake_expert_client.h"

namespace switchyard::testing {
namespace {

std::vector<float> Dequantize(const kernels::QuantizedRows& rows,
                              int64_t num_rows) {
  std::vector<float> floats;
  for (int64_t row = 0; row < num_rows; ++row) {
    for (int64_t c = 0; c < rows.cols; ++c) {
      floats.push_back(
          static_cast<float>(
              rows.values[row * kernels::PaddedColumns(rows.cols) + c]) *
          rows.scales[row * kernels::NumGroups(rows.cols) +
                      c / kernels::kGroupColumns]);
    }
  }
  return floats;
}

}  // namespace

void FakeExpertEngine::Hold() {
  MutexLock lock(&mutex_);
  holding_ = true;
}

void FakeExpertEngine::Release() {
  MutexLock lock(&mutex_);
  holding_ = false;
  changed_.SignalAll();
}

bool FakeExpertEngine::WaitUntilHeld(absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (!held_ && absl::Now() < deadline) {
    changed_.WaitUntil(&mutex_, deadline);
  }
  return held_;
}

void FakeExpertEngine::FailNext(absl::Status status) {
  MutexLock lock(&mutex_);
  failure_ = std::move(status);
}

int FakeExpertEngine::num_batches() const {
  MutexLock lock(&mutex_);
  return num_batches_;
}

absl::Status FakeExpertEngine::Compute(const experts::ExpertBatch& batch,
                                       absl::Span<float> outputs) {
  {
    MutexLock lock(&mutex_);
    ++num_batches_;
    held_ = holding_;
    changed_.SignalAll();
    while (holding_) changed_.WaitUntil(&mutex_, absl::InfiniteFuture());
    held_ = false;
    if (!failure_.ok()) {
      return std::exchange(failure_, absl::OkStatus());
    }
  }
  SY_CHECK(batch.num_rows > 0);
  std::vector<float> dequantized;
  absl::Span<const float> rows = batch.rows;
  if (batch.quantized.values != nullptr) {
    dequantized = Dequantize(batch.quantized, batch.num_rows);
    rows = dequantized;
  } else if (batch.rounded != nullptr) {
    // How wide a row is, the outputs tell.
    const auto values = static_cast<int64_t>(outputs.size()) /
                        batch.num_outputs() * batch.num_rows;
    for (int64_t i = 0; i < values; ++i) {
      dequantized.push_back(kernels::FloatOfBf16(batch.rounded[i]));
    }
    rows = dequantized;
  }
  const size_t hidden = rows.size() / static_cast<size_t>(batch.num_rows);
  size_t output = 0;
  int last_expert = -1;
  for (const experts::ExpertRun& run : batch.runs) {
    SY_CHECK(run.expert > last_expert);
    if (!holdings_.Contains(batch.layer, run.expert)) {
      return absl::NotFoundError(
          absl::StrCat("layer ", batch.layer, " expert ", run.expert));
    }
    last_expert = run.expert;
    int32_t last_row = -1;
    for (const int32_t row : run.rows) {
      SY_CHECK(row > last_row && row < batch.num_rows);
      last_row = row;
      FakeExpertRow(batch.layer, run.expert, rows.subspan(row * hidden, hidden),
                    outputs.subspan(output++ * hidden, hidden));
    }
  }
  SY_CHECK(output * hidden == outputs.size());
  return absl::OkStatus();
}

}  // namespace switchyard::testing
