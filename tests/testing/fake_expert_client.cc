#include "tests/testing/fake_expert_client.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/buffer_pool.h"
#include "base/check.h"

namespace switchyard::testing {

using attention_worker::ExpertCall;
using attention_worker::ExpertReply;

void FakeExpertRow(int layer, int expert, absl::Span<const float> in,
                   absl::Span<float> out) {
  const float scale = 1.0F + static_cast<float>(expert) / 7.0F;
  for (size_t i = 0; i < in.size(); ++i) {
    out[i] = in[i] * scale + static_cast<float>(layer * 1000 + expert * 10 +
                                                static_cast<int>(i));
  }
}

ExpertReply ReplyOf(absl::Span<const float> outputs) {
  static const std::shared_ptr<BufferPool>& pool =
      *new std::shared_ptr<BufferPool>(BufferPool::Create(1 << 20));
  PooledBuffer buffer = pool->Take(outputs.size() * sizeof(float));
  std::copy(outputs.begin(), outputs.end(), buffer.data<float>());
  return ExpertReply(std::move(buffer));
}

FakeExpertClient::~FakeExpertClient() {
  ReleaseAll(absl::UnavailableError("the fake is gone"));
}

void FakeExpertClient::FailNext(absl::Status status) {
  MutexLock lock(&mutex_);
  failures_.push_back(std::move(status));
}

void FakeExpertClient::Hold() {
  MutexLock lock(&mutex_);
  holding_ = true;
}

bool FakeExpertClient::ReleaseOne(const absl::Status& status) {
  Held held;
  {
    MutexLock lock(&mutex_);
    if (held_.empty()) return false;
    held = std::move(held_.front());
    held_.pop_front();
  }
  Answer(std::move(held), status);
  return true;
}

void FakeExpertClient::ReleaseAll(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    holding_ = false;
  }
  while (ReleaseOne(status)) {
  }
}

bool FakeExpertClient::WaitForHeld(size_t count, absl::Time deadline) {
  MutexLock lock(&mutex_);
  while (held_.size() < count && absl::Now() < deadline) {
    changed_.WaitUntil(&mutex_, deadline);
  }
  return held_.size() >= count;
}

void FakeExpertClient::Change(model::ExpertSet holdings, absl::Status health) {
  std::function<void()> listener;
  {
    MutexLock lock(&mutex_);
    holdings_ = std::move(holdings);
    health_ = std::move(health);
    listener = listener_;
  }
  if (listener) listener();
}

void FakeExpertClient::SetHoldings(model::ExpertSet holdings) {
  Change(std::move(holdings), absl::OkStatus());
}

void FakeExpertClient::Disconnect(absl::Status why) {
  Change(model::ExpertSet(), std::move(why));
  while (ReleaseOne(absl::UnavailableError("lost"))) {
  }
}

void FakeExpertClient::Reconnect(model::ExpertSet holdings) {
  {
    MutexLock lock(&mutex_);
    failures_.clear();
  }
  Change(std::move(holdings), absl::OkStatus());
}

size_t FakeExpertClient::num_calls() const {
  MutexLock lock(&mutex_);
  return records_.size();
}

std::vector<FakeExpertClient::Record> FakeExpertClient::records() const {
  MutexLock lock(&mutex_);
  return records_;
}

model::ExpertSet FakeExpertClient::holdings() const {
  MutexLock lock(&mutex_);
  return holdings_;
}

absl::Status FakeExpertClient::health() const {
  MutexLock lock(&mutex_);
  return health_;
}

void FakeExpertClient::SetListener(std::function<void()> listener) {
  MutexLock lock(&mutex_);
  listener_ = std::move(listener);
}

void FakeExpertClient::Forward(const ExpertCall& call, Done done) {
  absl::Status status;
  SY_CHECK(call.num_rows > 0);
  const auto hidden = static_cast<size_t>(call.hidden_size);
  Held held{.layer = call.layer,
            .rows = {},
            .runs = {call.runs.begin(), call.runs.end()},
            .done = std::move(done)};
  for (const int32_t row : call.source_rows) {
    const auto values =
        call.rows.subspan(static_cast<size_t>(row) * hidden, hidden);
    held.rows.emplace_back(values.begin(), values.end());
  }
  {
    MutexLock lock(&mutex_);
    records_.push_back({call.layer, call.num_rows, held.runs, call.deadline});
    if (!health_.ok()) {
      status = absl::UnavailableError(health_.message());
    } else if (!failures_.empty()) {
      status = std::move(failures_.front());
      failures_.pop_front();
    } else if (absl::Now() >= call.deadline) {
      status = absl::DeadlineExceededError("too late");
    } else {
      for (const experts::ExpertRun& run : held.runs) {
        if (call.layer < holdings_.num_layers() &&
            run.expert < holdings_.num_experts() &&
            holdings_.Contains(call.layer, run.expert)) {
          continue;
        }
        status = absl::NotFoundError(
            absl::StrCat("layer ", call.layer, " expert ", run.expert));
      }
    }
    if (status.ok() && holding_) {
      held_.push_back(std::move(held));
      changed_.SignalAll();
      return;
    }
  }
  Answer(std::move(held), status);
}

void FakeExpertClient::Answer(Held held, const absl::Status& status) const {
  if (!status.ok()) {
    std::move(held.done)(status);
    return;
  }
  const size_t hidden = held.rows.front().size();
  std::vector<float> outputs;
  for (const experts::ExpertRun& run : held.runs) {
    for (const int32_t row : run.rows) {
      outputs.resize(outputs.size() + hidden);
      FakeExpertRow(held.layer, run.expert, held.rows[row],
                    absl::MakeSpan(outputs).last(hidden));
    }
  }
  ExpertReply reply = ReplyOf(outputs);
  reply.set_compute_time(compute_time_);
  std::move(held.done)(std::move(reply));
}

}  // namespace switchyard::testing
