#include "tests/testing/fake_expert_client.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
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

void FakeExpertClient::Forward(ExpertCall call, Done done) {
  absl::Status status;
  {
    MutexLock lock(&mutex_);
    records_.push_back({call.layer, call.num_rows, call.runs, call.deadline});
    if (!health_.ok()) {
      status = absl::UnavailableError(health_.message());
    } else if (!failures_.empty()) {
      status = std::move(failures_.front());
      failures_.pop_front();
    } else if (absl::Now() >= call.deadline) {
      status = absl::DeadlineExceededError("too late");
    } else {
      for (const experts::ExpertRun& run : call.runs) {
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
      held_.push_back({std::move(call), std::move(done)});
      changed_.SignalAll();
      return;
    }
  }
  Answer({std::move(call), std::move(done)}, status);
}

void FakeExpertClient::Answer(Held held, const absl::Status& status) const {
  if (!status.ok()) {
    std::move(held.done)(status);
    return;
  }
  const ExpertCall& call = held.call;
  SY_CHECK(call.num_rows > 0);
  const size_t hidden = call.rows.size() / static_cast<size_t>(call.num_rows);
  ExpertReply reply;
  reply.compute_time = compute_time_;
  for (const experts::ExpertRun& run : call.runs) {
    for (const int32_t row : run.rows) {
      reply.outputs.resize(reply.outputs.size() + hidden);
      FakeExpertRow(
          call.layer, run.expert,
          absl::MakeConstSpan(call.rows).subspan(row * hidden, hidden),
          absl::MakeSpan(reply.outputs).last(hidden));
    }
  }
  std::move(held.done)(std::move(reply));
}

}  // namespace switchyard::testing
