// Calls with known answers, and waiting for them.

#ifndef SWITCHYARD_TESTS_ATTENTION_WORKER_CLIENT_CLIENT_TEST_UTIL_H_
#define SWITCHYARD_TESTS_ATTENTION_WORKER_CLIENT_CLIENT_TEST_UTIL_H_

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

// `num_rows` rows through each of `experts` (ascending); values differ by
// `seed`.
inline ExpertCall MakeExpertCall(int layer, const std::vector<int>& experts,
                                 int num_rows, int64_t hidden, float seed) {
  ExpertCall call;
  call.layer = layer;
  call.num_rows = num_rows;
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
inline std::vector<float> FakeOutputs(const ExpertCall& call) {
  const int64_t hidden = static_cast<int64_t>(call.rows.size()) / call.num_rows;
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

using ReplyFuture = std::future<absl::StatusOr<ExpertReply>>;

// Answering twice, or never, breaks the promise, which fails the test.
inline ReplyFuture StartCall(ExpertClient* client, ExpertCall call) {
  auto promise = std::make_shared<std::promise<absl::StatusOr<ExpertReply>>>();
  ReplyFuture future = promise->get_future();
  client->Forward(std::move(call),
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
                                               ExpertCall call) {
  ReplyFuture future = StartCall(client, std::move(call));
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
