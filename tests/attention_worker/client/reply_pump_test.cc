// The dispatcher over real streams, whose replies its thread fetches itself
// (expert_io.h).

#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "attention_worker/client/expert_io.h"
#include "attention_worker/client/grpc_expert_client.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "base/thread.h"
#include "fabric/wire/expert_terms.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/bf16.h"
#include "kernels/kernel_table.h"
#include "metrics/registry.h"
#include "tests/attention_worker/client/client_test_util.h"
#include "tests/attention_worker/moe/dispatch_problem.h"
#include "tests/testing/fake_expert_worker.h"
#include "tests/testing/matchers.h"
#include "tests/testing/temp_dir.h"

namespace switchyard::attention_worker {
namespace {

using ::switchyard::testing::FakeExpertWorker;
using ::switchyard::testing::IsOk;
using ::switchyard::testing::StatusIs;
using ::switchyard::testing::TempDir;
using ::testing::Each;

constexpr int kLayers = 3;
constexpr int kExperts = 16;
constexpr int64_t kHidden = 40;

model::ExpertSet Range(int begin, int end) {
  model::ExpertSet some(kLayers, kExperts);
  for (int l = 0; l < kLayers; ++l) {
    for (int e = begin; e < end; ++e) some.Insert(l, e);
  }
  return some;
}

class ReplyPumpTest : public ::testing::TestWithParam<bool> {  // unix sockets
 protected:
  FakeExpertWorker::Options WorkerOptions(int index,
                                          model::ExpertSet holdings) {
    FakeExpertWorker::Options options;
    options.identity.hidden_size = kHidden;
    options.identity.weight_format = fabric::WeightFormatOf(expert_dtype_);
    options.holdings = std::move(holdings);
    if (GetParam()) {
      options.host = absl::StrCat("unix:", directory_.path(), "/", index);
    }
    return options;
  }

  // Dispatches give what rows give that `round` has changed as the sender does:
  // what the workers can know of them.
  void ExpectResultsOf(const std::function<void(std::vector<float>*)>& round) {
    for (int i = 0; i < 20; ++i) {
      const DispatchProblem problem = Problem(1 + i % 5);
      DispatchProblem rounded = problem;
      round(&rounded.rows);
      ASSERT_NE(rounded.rows, problem.rows);
      const DispatchResult result =
          dispatcher_->Dispatch(problem.Request(), [] {});
      ASSERT_THAT(result.sequence_status, Each(IsOk()));
      ASSERT_EQ(Outputs(result, kHidden), rounded.Expected());
    }
  }

  void Start(absl::Duration spin = absl::ZeroDuration()) {
    io_ = std::make_shared<ExpertIo>(spin);
    workers_.push_back(
        std::make_unique<FakeExpertWorker>(WorkerOptions(0, Range(0, 9))));
    workers_.push_back(
        std::make_unique<FakeExpertWorker>(WorkerOptions(1, Range(9, 16))));
    ExpertDispatcherOptions options;
    for (const auto& worker : workers_) {
      clients_.push_back(
          NewGrpcExpertClient({.address = worker->address(),
                               .model_fingerprint = "f00d",
                               .num_layers = kLayers,
                               .num_experts = kExperts,
                               .hidden_size = kHidden,
                               .expert_dtype = expert_dtype_,
                               .instance_id = "test",
                               .registry = registry_.get(),
                               .io = io_,
                               .min_backoff = absl::Milliseconds(5),
                               .max_backoff = absl::Milliseconds(20)})
              .value());
      options.clients.push_back(clients_.back());
    }
    options.required = Range(0, kExperts);
    options.registry = registry_.get();
    options.pump = io_;
    options.row_format = kernels::RowFormatOf(expert_dtype_);
    dispatcher_ = NewExpertDispatcher(std::move(options));
  }

  DispatchProblem Problem(int64_t num_rows, absl::Time deadline = Soon()) {
    return DispatchProblem::Random(random_, kLayers, kExperts, num_rows,
                                   /*experts_per_row=*/4, kHidden,
                                   /*num_sequences=*/1, deadline);
  }

  void CheckDispatch(const DispatchProblem& problem) {
    const DispatchResult result =
        dispatcher_->Dispatch(problem.Request(), [] {});
    ASSERT_THAT(result.sequence_status, Each(IsOk()));
    ASSERT_EQ(Outputs(result, kHidden), problem.Expected());
  }

  std::mt19937 random_{5};
  kernels::DType expert_dtype_ = kernels::DType::kF32;
  TempDir directory_;
  std::unique_ptr<metrics::Registry> registry_ = metrics::Registry::Create();
  std::vector<std::unique_ptr<FakeExpertWorker>> workers_;
  std::shared_ptr<ExpertIo> io_;
  std::vector<std::shared_ptr<ExpertClient>> clients_;
  std::unique_ptr<ExpertDispatcher> dispatcher_;
};

TEST_P(ReplyPumpTest, ManyDispatchesInARow) {
  Start();
  for (int i = 0; i < 300; ++i) CheckDispatch(Problem(1 + i % 7));
}

TEST_P(ReplyPumpTest, ManyDispatchesWithPausesAndSpinning) {
  Start(absl::Microseconds(100));
  for (int i = 0; i < 40; ++i) {
    CheckDispatch(Problem(2));
    // Long enough for the other thread to take the queue over, and shorter.
    if (i % 4 == 0) absl::SleepFor(absl::Milliseconds(i % 8 == 0 ? 12 : 4));
  }
}

TEST_P(ReplyPumpTest, AWorkerThatDiesMidDispatchAndComesBack) {
  Start();
  CheckDispatch(Problem(3));
  workers_[1]->engine().Hold();
  const int port = workers_[1]->port();
  DispatchProblem problem = Problem(3);
  problem.experts = {0, 1, 9, 10, 2, 3, 11, 12, 4, 5, 13, 14};
  std::thread killer;
  const DispatchResult result = dispatcher_->Dispatch(problem.Request(), [&] {
    killer = StartThread("killer", [&] {
      ASSERT_TRUE(workers_[1]->engine().WaitUntilHeld(Soon()));
      workers_[1]->Kill();
      workers_[1] = nullptr;
      FakeExpertWorker::Options options = WorkerOptions(1, Range(9, 16));
      options.port = port;
      workers_[1] = std::make_unique<FakeExpertWorker>(options);
    });
  });
  killer.join();
  ASSERT_THAT(result.sequence_status, Each(IsOk()));
  EXPECT_EQ(Outputs(result, kHidden), problem.Expected());
  CheckDispatch(Problem(3));
}

TEST_P(ReplyPumpTest, ADeadlineEndsTheWait) {
  Start();
  CheckDispatch(Problem(1));
  workers_[0]->engine().Hold();
  DispatchProblem problem = Problem(1, absl::Now() + absl::Milliseconds(40));
  problem.experts = {0, 1, 2, 3};
  const DispatchResult result = dispatcher_->Dispatch(problem.Request(), [] {});
  EXPECT_THAT(result.sequence_status[0],
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_GE(absl::Now(), problem.deadlines[0]);
  EXPECT_LT(absl::Now(), problem.deadlines[0] + absl::Seconds(5));
  workers_[0]->engine().Release();
  CheckDispatch(Problem(1));
}

// A Poll that waits is ended from outside, every time.
TEST_P(ReplyPumpTest, WakeEndsAPoll) {
  ExpertIo io{absl::ZeroDuration()};
  for (int i = 0; i < 200; ++i) {
    std::thread waker = StartThread("waker", [&io] { io.Wake(); });
    const absl::Time deadline = Soon();
    // Its own thread may take the first one, before it sees that we poll.
    io.Poll(deadline);
    EXPECT_LT(absl::Now(), deadline);
    waker.join();
  }
}

TEST_P(ReplyPumpTest, RowsInBf16AreSentAsTheyAreComputedWith) {
  expert_dtype_ = kernels::DType::kBF16Dot;
  Start();
  ExpectResultsOf([](std::vector<float>* rows) {
    for (float& value : *rows) {
      value = kernels::FloatOfBf16(kernels::Bf16OfFloat(value));
    }
  });
}

TEST_P(ReplyPumpTest, QuantisedRowsAreSentAsTheyAreComputedWith) {
  expert_dtype_ = kernels::DType::kQ8;
  Start();
  ExpectResultsOf([](std::vector<float>* rows) {
    for (auto row = rows->begin(); row != rows->end(); row += kHidden) {
      int8_t values[64];
      float scales[2];
      int32_t sums[2];
      kernels::Kernels().quantize_row(&*row, kHidden, values, scales, sums);
      for (int64_t c = 0; c < kHidden; ++c) {
        const float rounded = static_cast<float>(values[c]) * scales[c / 32];
        ASSERT_NEAR(rounded, row[c], scales[c / 32]);
        row[c] = rounded;
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Transports, ReplyPumpTest, ::testing::Bool(),
                         [](const auto& info) {
                           return info.param ? "Unix" : "Tcp";
                         });

}  // namespace
}  // namespace switchyard::attention_worker
