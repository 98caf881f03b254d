#include "expert_worker/service/compute_queue.h"

#include <cstdint>
#include <future>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/buffer_pool.h"
#include "base/thread.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "metrics/registry.h"
#include "tests/testing/fake_expert_client.h"
#include "tests/testing/fake_expert_engine.h"
#include "tests/testing/matchers.h"

namespace switchyard::expert_worker {
namespace {

using ::switchyard::testing::FakeExpertEngine;
using ::switchyard::testing::FakeExpertRow;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kHidden = 4;

absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

model::ExpertSet SomeExperts() {
  model::ExpertSet set(2, 8);
  for (int e = 0; e < 6; ++e) {
    set.Insert(0, e);
    set.Insert(1, e);
  }
  return set;
}

class ComputeQueueTest : public ::testing::Test {
 protected:
  ~ComputeQueueTest() override {
    engine_.Release();
    for (std::thread& reader : readers_) reader.join();
  }
  void Start(int64_t max_bytes = 1 << 20, int64_t max_batch_outputs = 4096) {
    queue_ = std::make_unique<ComputeQueue>(
        ComputeQueue::Options{.engine = &engine_,
                              .hidden_size = kHidden,
                              .max_bytes = max_bytes,
                              .max_batch_outputs = max_batch_outputs,
                              .buffers = BufferPool::Create(1 << 20),
                              .metrics = &metrics_});
  }

  // Rows differ by `seed`.
  static ComputeRequest Request(int layer, float seed,
                                std::vector<experts::ExpertRun> runs) {
    ComputeRequest request;
    request.layer = layer;
    request.runs = std::move(runs);
    for (const experts::ExpertRun& run : request.runs) {
      for (const int32_t row : run.rows) {
        request.num_rows = std::max<int64_t>(request.num_rows, row + 1);
        ++request.num_outputs;
      }
    }
    PooledBuffer rows = BufferPool::Create(0)->Take(
        static_cast<size_t>(request.num_rows * kHidden) * sizeof(float));
    for (int64_t i = 0; i < request.num_rows * kHidden; ++i) {
      rows.data<float>()[i] = seed + static_cast<float>(i);
    }
    request.rows = ActivationRows::Floats(std::move(rows));
    return request;
  }

  static std::vector<float> Expected(int layer, float seed,
                                     std::vector<experts::ExpertRun> runs) {
    return Expected(Request(layer, seed, std::move(runs)));
  }
  static std::vector<float> Outputs(const ComputeOutcome& outcome) {
    const absl::Span<const float> outputs = outcome.outputs.span<float>();
    return {outputs.begin(), outputs.end()};
  }
  static std::vector<float> Expected(const ComputeRequest& request) {
    std::vector<float> out(request.num_outputs * kHidden);
    int64_t next = 0;
    for (const experts::ExpertRun& run : request.runs) {
      for (const int32_t row : run.rows) {
        FakeExpertRow(request.layer, run.expert,
                      request.rows.floats().subspan(row * kHidden, kHidden),
                      absl::MakeSpan(out).subspan(kHidden * next++, kHidden));
      }
    }
    return out;
  }

  // The future has no value when Submit failed; then `status` has its error.
  std::future<ComputeOutcome> Submit(ComputeRequest request,
                                     absl::Status* status = nullptr,
                                     absl::Time received = absl::Now()) {
    auto promise = std::make_shared<std::promise<ComputeOutcome>>();
    std::future<ComputeOutcome> future = promise->get_future();
    const absl::Status submitted =
        queue_->Submit({.request = std::move(request),
                        .abandoned = abandoned_,
                        .received = received,
                        .done = [promise](ComputeOutcome outcome) {
                          promise->set_value(std::move(outcome));
                        }});
    // A thread that has read a request: it computes, unless another one does.
    if (submitted.ok()) {
      readers_.push_back(
          StartThread("reader", [this] { queue_->RunPending(); }));
    }
    if (status == nullptr) {
      EXPECT_THAT(submitted, IsOk());
    } else {
      *status = submitted;
    }
    return future;
  }

  static ComputeOutcome Get(std::future<ComputeOutcome>& future) {
    if (future.wait_until(absl::ToChronoTime(Soon())) !=
        std::future_status::ready) {
      ADD_FAILURE() << "no outcome";
      return {};
    }
    return future.get();
  }

  std::unique_ptr<metrics::Registry> registry_ = metrics::Registry::Create();
  ExpertMetrics metrics_{registry_.get()};
  FakeExpertEngine engine_{SomeExperts()};
  std::shared_ptr<std::atomic<bool>> abandoned_ =
      std::make_shared<std::atomic<bool>>(false);
  std::unique_ptr<ComputeQueue> queue_;
  std::vector<std::thread> readers_;
};

TEST_F(ComputeQueueTest, Computes) {
  Start();
  const std::vector<experts::ExpertRun> runs = {{0, {0, 2}}, {5, {1}}};
  auto future = Submit(Request(1, 3, runs));
  const ComputeOutcome outcome = Get(future);
  EXPECT_THAT(outcome.status, IsOk());
  EXPECT_EQ(Outputs(outcome), Expected(1, 3, runs));
  EXPECT_EQ(metrics_.rows->value(), 3);
  EXPECT_EQ(metrics_.outputs->value(), 3);
}

TEST_F(ComputeQueueTest, RequestsOfOneLayerThatWaitShareABatch) {
  Start();
  engine_.Hold();
  const std::vector<experts::ExpertRun> first = {{0, {0}}};
  const std::vector<experts::ExpertRun> same1 = {{1, {0, 1}}, {3, {1}}};
  const std::vector<experts::ExpertRun> other = {{1, {0}}};
  const std::vector<experts::ExpertRun> same2 = {{0, {1}}, {1, {0, 2}}};
  auto future0 = Submit(Request(0, 1, first));
  ASSERT_TRUE(engine_.WaitUntilHeld(Soon()));
  auto future1 = Submit(Request(1, 100, same1));
  auto future2 = Submit(Request(0, 300, other));
  auto future3 = Submit(Request(1, 200, same2));
  engine_.Release();
  EXPECT_EQ(Outputs(Get(future0)), Expected(0, 1, first));
  EXPECT_EQ(Outputs(Get(future1)), Expected(1, 100, same1));
  EXPECT_EQ(Outputs(Get(future2)), Expected(0, 300, other));
  EXPECT_EQ(Outputs(Get(future3)), Expected(1, 200, same2));
  EXPECT_EQ(engine_.num_batches(), 3);  // first; same1 and same2; other
}

// The numbers are whole and small, which bf16 has.
TEST_F(ComputeQueueTest, RowsInBf16ShareABatchToo) {
  const auto in_bf16 = [](ComputeRequest request) {
    const absl::Span<const float> floats = request.rows.floats();
    PooledBuffer rows =
        BufferPool::Create(0)->Take(floats.size() * sizeof(uint16_t));
    for (size_t i = 0; i < floats.size(); ++i) {
      rows.data<uint16_t>()[i] = kernels::Bf16OfFloat(floats[i]);
      EXPECT_EQ(kernels::FloatOfBf16(rows.data<uint16_t>()[i]), floats[i]);
    }
    request.rows = ActivationRows::Rounded(std::move(rows));
    return request;
  };
  Start();
  engine_.Hold();
  const std::vector<experts::ExpertRun> first = {{0, {0}}};
  const std::vector<experts::ExpertRun> same1 = {{1, {0, 1}}, {3, {1}}};
  const std::vector<experts::ExpertRun> same2 = {{0, {1}}, {1, {0, 2}}};
  auto future0 = Submit(in_bf16(Request(0, 1, first)));
  ASSERT_TRUE(engine_.WaitUntilHeld(Soon()));
  auto future1 = Submit(in_bf16(Request(1, 100, same1)));
  auto future2 = Submit(in_bf16(Request(1, 200, same2)));
  engine_.Release();
  EXPECT_EQ(Outputs(Get(future0)), Expected(0, 1, first));
  EXPECT_EQ(Outputs(Get(future1)), Expected(1, 100, same1));
  EXPECT_EQ(Outputs(Get(future2)), Expected(1, 200, same2));
  EXPECT_EQ(engine_.num_batches(), 2);
}

TEST_F(ComputeQueueTest, ABatchHasALimit) {
  Start(1 << 20, /*max_batch_outputs=*/3);
  engine_.Hold();
  auto future0 = Submit(Request(0, 1, {{0, {0}}}));
  ASSERT_TRUE(engine_.WaitUntilHeld(Soon()));
  auto future1 = Submit(Request(1, 1, {{0, {0, 1}}}));
  auto future2 = Submit(Request(1, 2, {{0, {0, 1}}}));
  auto future3 = Submit(Request(1, 3, {{0, {0}}}));
  engine_.Release();
  for (auto* future : {&future0, &future1, &future2, &future3}) {
    EXPECT_THAT(Get(*future).status, IsOk());
  }
  EXPECT_EQ(engine_.num_batches(), 3);  // 0; 1 and 3; 2
}

TEST_F(ComputeQueueTest, AFailedBatchFailsAllOfIt) {
  Start();
  engine_.Hold();
  auto future0 = Submit(Request(0, 1, {{0, {0}}}));
  ASSERT_TRUE(engine_.WaitUntilHeld(Soon()));
  engine_.FailNext(absl::InternalError("broken"));
  engine_.Release();
  const ComputeOutcome outcome = Get(future0);
  EXPECT_THAT(outcome.status, StatusIs(absl::StatusCode::kInternal));
  EXPECT_TRUE(outcome.outputs.empty());
}

TEST_F(ComputeQueueTest, ExpertsThatAreNotHeldAreNamed) {
  Start();
  absl::Status status;
  Submit(Request(1, 1, {{5, {0}}, {6, {0}}, {7, {0}}}), &status);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound,
                               HasSubstr("experts 6-7 of layer 1")));
}

TEST_F(ComputeQueueTest, AFullQueueRefuses) {
  // Each request: 1 row in, 1 out, of 16 bytes.
  Start(/*max_bytes=*/64);
  engine_.Hold();
  auto future0 = Submit(Request(0, 1, {{0, {0}}}));
  ASSERT_TRUE(engine_.WaitUntilHeld(Soon()));
  auto future1 = Submit(Request(0, 2, {{0, {0}}}));
  absl::Status status;
  Submit(Request(0, 3, {{0, {0}}}), &status);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               HasSubstr("64 of at most 64 bytes")));
  engine_.Release();
  EXPECT_THAT(Get(future0).status, IsOk());
  EXPECT_THAT(Get(future1).status, IsOk());
}

TEST_F(ComputeQueueTest, OneLargeRequestIsTakenWhenThereIsNoOther) {
  Start(/*max_bytes=*/64);
  auto future = Submit(Request(0, 1, {{0, {0, 1, 2, 3, 4}}}));
  EXPECT_THAT(Get(future).status, IsOk());
}

TEST_F(ComputeQueueTest, WhatWaitedTooLongIsNotComputed) {
  Start();
  engine_.Hold();
  auto future0 = Submit(Request(0, 1, {{0, {0}}}));
  ASSERT_TRUE(engine_.WaitUntilHeld(Soon()));
  ComputeRequest request = Request(1, 1, {{0, {0}}});
  request.timeout = absl::Milliseconds(1);
  absl::Status submitted;
  auto future1 = Submit(std::move(request), &submitted,
                        /*received=*/absl::Now() - absl::Milliseconds(1));
  ASSERT_THAT(submitted, IsOk());
  engine_.Release();
  EXPECT_THAT(Get(future0).status, IsOk());
  EXPECT_THAT(Get(future1).status, StatusIs(absl::StatusCode::kDeadlineExceeded,
                                            HasSubstr("timeout of 1ms")));
  EXPECT_EQ(engine_.num_batches(), 1);
}

TEST_F(ComputeQueueTest, WhatNobodyWaitsForIsNotComputed) {
  Start();
  engine_.Hold();
  auto future0 = Submit(Request(0, 1, {{0, {0}}}));
  ASSERT_TRUE(engine_.WaitUntilHeld(Soon()));
  auto future1 = Submit(Request(1, 1, {{0, {0}}}));
  *abandoned_ = true;
  engine_.Release();
  EXPECT_THAT(Get(future1).status, StatusIs(absl::StatusCode::kCancelled));
  EXPECT_EQ(engine_.num_batches(), 1);
}

TEST_F(ComputeQueueTest, ClosingAnswersWhatWaits) {
  Start();
  engine_.Hold();
  auto future0 = Submit(Request(0, 1, {{0, {0}}}));
  ASSERT_TRUE(engine_.WaitUntilHeld(Soon()));
  auto future1 = Submit(Request(1, 1, {{0, {0}}}));
  std::future<void> closed =
      std::async(std::launch::async, [this] { queue_->Close(); });
  // Close takes what waits at once; the compute thread cannot, it is held.
  absl::Status status;
  do {
    Submit(Request(1, 1, {{0, {0}}}), &status);
  } while (status.ok());
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable));
  engine_.Release();
  EXPECT_THAT(Get(future0).status, IsOk());
  EXPECT_THAT(Get(future1).status, StatusIs(absl::StatusCode::kUnavailable));
  closed.get();
}

}  // namespace
}  // namespace switchyard::expert_worker
