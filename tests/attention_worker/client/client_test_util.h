// Calls with known answers, and waiting for them.

#ifndef SWITCHYARD_TESTS_ATTENTION_WORKER_CLIENT_CLIENT_TEST_UTIL_H_
#define SWITCHYARD_TESTS_ATTENTION_WORKER_CLIENT_CLIENT_TEST_UTIL_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "attention_worker/moe/expert_client.h"
#include "tests/testing/fake_expert_client.h"

namespace switchyard::attention_worker {

// No test takes this long unless it fails.
inline absl::Time Soon() { return absl::Now() + absl::Seconds(20); }

// A call that owns what it is about.
struct TestCall {
  int layer = 0;
  int64_t num_rows = 0;
  int64_t hidden_size = 0;
  std::vector<float> rows;
  std::vector<experts::ExpertRun> runs;
  absl::Time deadline = absl::InfiniteFuture();
};

// `num_rows` rows through each of `experts` (ascending); values differ by
// `seed`.
inline TestCall MakeExpertCall(int layer, const std::vector<int>& experts,
                               int num_rows, int64_t hidden, float seed) {
  TestCall call;
  call.layer = layer;
  call.num_rows = num_rows;
  call.hidden_size = hidden;
  call.deadline = Soon();
  for (int64_t i = 0; i < num_rows * hidden; ++i) {
    call.rows.push_back(seed + static_cast<float>(i) / 8);
  }
  for (const int expert : experts) {
    experts::ExpertRun& run = call.runs.emplace_back();
    run.expert = expert;
    for (int row = 0; row < num_rows; ++row) run.rows.push_back(row);
  }
  return call;
}

// What FakeExpertRow makes of it.
inline std::vector<float> FakeOutputs(const TestCall& call) {
  const int64_t hidden = call.hidden_size;
  std::vector<float> out;
  for (const experts::ExpertRun& run : call.runs) {
    for (const int32_t row : run.rows) {
      out.resize(out.size() + hidden);
      testing::FakeExpertRow(
          call.layer, run.expert,
          absl::MakeConstSpan(call.rows).subspan(row * hidden, hidden),
          absl::MakeSpan(out).last(hidden));
    }
  }
  return out;
}

inline std::vector<float> Outputs(ExpertReply& reply) {
  const std::shared_ptr<BufferPool> pool = BufferPool::Create(0);
  const absl::Span<const float> outputs = reply.Outputs(pool.get());
  return {outputs.begin(), outputs.end()};
}

using ReplyFuture = std::future<absl::StatusOr<ExpertReply>>;

// Answering twice, or never, breaks the promise, which fails the test.
inline ReplyFuture StartCall(ExpertClient* client, const TestCall& call) {
  auto promise = std::make_shared<std::promise<absl::StatusOr<ExpertReply>>>();
  ReplyFuture future = promise->get_future();
  // Among rows that are not the call's, which must not be sent.
  std::vector<float> all(call.rows.size() * 2, -1e30F);
  std::vector<int32_t> source_rows;
  for (int64_t row = 0; row < call.num_rows; ++row) {
    source_rows.push_back(static_cast<int32_t>(2 * row + 1));
    std::copy_n(call.rows.begin() + row * call.hidden_size, call.hidden_size,
                all.begin() + source_rows.back() * call.hidden_size);
  }
  client->Forward({.layer = call.layer,
                   .hidden_size = call.hidden_size,
                   .num_rows = call.num_rows,
                   .source_rows = source_rows,
                   .rows = all,
                   .quantized = {},
                   .runs = call.runs,
                   .deadline = call.deadline},
                  [promise](absl::StatusOr<ExpertReply> reply) {
                    promise->set_value(std::move(reply));
                  });
  return future;
}

inline absl::StatusOr<ExpertReply> Await(ReplyFuture& future) {
  if (future.wait_until(absl::ToChronoTime(Soon())) !=
      std::future_status::ready) {
    return absl::InternalError("the call was never answered");
  }
  return future.get();
}

inline absl::StatusOr<ExpertReply> CallAndWait(ExpertClient* client,
                                               const TestCall& call) {
  ReplyFuture future = StartCall(client, call);
  return Await(future);
}

// Looks again and again, for what announces itself to nobody.
inline bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = Soon();
  while (!condition()) {
    if (absl::Now() >= deadline) return false;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return true;
}

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_TESTS_ATTENTION_WORKER_CLIENT_CLIENT_TEST_UTIL_H_
