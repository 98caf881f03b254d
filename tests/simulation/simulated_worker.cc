#include "tests/simulation/simulated_worker.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/buffer_pool.h"

namespace switchyard::simulation {

using attention_worker::ExpertCall;
using attention_worker::ExpertReply;

namespace {

// Answers after a deadline come so late at most.
constexpr absl::Duration kAfterDeadline = absl::Milliseconds(2);

uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

const std::shared_ptr<BufferPool>& Buffers() {
  static const auto& pool =
      *new std::shared_ptr<BufferPool>(BufferPool::Create(1 << 20));
  return pool;
}

}  // namespace

void RightAnswer(int layer, int expert, absl::Span<const float> row,
                 absl::Span<float> out) {
  uint64_t hash =
      Mix((static_cast<uint64_t>(layer) << 32) + static_cast<uint64_t>(expert));
  for (const float x : row) {
    uint32_t bits = 0;
    std::memcpy(&bits, &x, sizeof(bits));
    hash = Mix(hash ^ bits);
  }
  for (float& x : out) {
    hash = Mix(hash);
    x = static_cast<float>(hash >> 40);  // 24 bits: exact
  }
}

SimulatedWorker::SimulatedWorker(std::string name, model::ExpertSet holdings,
                                 uint64_t seed, EventQueue* queue,
                                 Violations* violations)
    : name_(std::move(name)),
      queue_(*queue),
      violations_(*violations),
      random_(seed),
      holdings_(std::move(holdings)),
      instance_id_(absl::StrCat(name_, "#", process_)) {}

void SimulatedWorker::Kill(absl::Duration seen_after) {
  Disturbed();
  if (!up_) return;
  killed_ = true;
  // Until it is seen, calls are lost like in a process that hangs.
  hangs_ = true;
  const int process = process_;
  queue_.After(seen_after, [this, process] {
    if (process != process_ || !up_) return;
    up_ = false;
    FailAll(absl::UnavailableError("lost while the call was in flight"));
    Tell();
  });
}

void SimulatedWorker::Start(model::ExpertSet holdings) {
  Disturbed();
  if (up_) {
    up_ = false;
    FailAll(absl::UnavailableError("lost while the call was in flight"));
    Tell();
  }
  ++process_;
  instance_id_ = absl::StrCat(name_, "#", process_);
  holdings_ = std::move(holdings);
  up_ = true;
  killed_ = hangs_ = wrong_ = false;
  failures_left_ = 0;
  busy_until_ = absl::InfinitePast();
  Tell();
}

void SimulatedWorker::Hang() {
  Disturbed();
  hangs_ = true;
}

void SimulatedWorker::GoOn() {
  Disturbed();
  if (!hangs_ || killed_) return;
  hangs_ = false;
  const std::vector<CallPtr> waiting = open_;
  for (const CallPtr& call : waiting) {
    queue_.After(pace_.call, [this, call] { Answer(call); });
  }
}

void SimulatedWorker::SetHoldings(model::ExpertSet holdings) {
  Disturbed();
  holdings_ = std::move(holdings);
  if (up_) Tell();
}

void SimulatedWorker::Check(const ExpertCall& call) {
  if (!in_set_) {
    violations_.Add(absl::StrCat("a call to ", name_, ", which was removed"));
  }
  const model::ExpertSet held = holdings();
  for (const experts::ExpertRun& run : call.runs) {
    if (held.num_layers() == 0 || !held.Contains(call.layer, run.expert)) {
      violations_.Add(absl::StrCat("a call to ", name_, " for layer ",
                                   call.layer, " expert ", run.expert,
                                   ", which it does not say it has"));
    }
  }
}

void SimulatedWorker::Compute(const ExpertCall& call, Call* kept) const {
  const auto hidden = static_cast<size_t>(call.hidden_size);
  kept->layer = call.layer;
  for (const experts::ExpertRun& run : call.runs) {
    kept->experts.push_back(run.expert);
    for (const int32_t row : run.rows) {
      const size_t at = kept->outputs.size();
      kept->outputs.resize(at + hidden);
      RightAnswer(
          call.layer, run.expert,
          call.rows.subspan(static_cast<size_t>(call.source_rows[row]) * hidden,
                            hidden),
          absl::MakeSpan(kept->outputs).subspan(at, hidden));
      if (wrong_) kept->outputs[at] += 1;
    }
  }
}

void SimulatedWorker::Forward(const ExpertCall& call, Done done) {
  Check(call);
  ++num_calls_;
  num_pairs_ += call.num_outputs();
  const absl::Time now = queue_.Now();
  if (!up_) {
    std::move(done)(absl::UnavailableError("killed"));
    return;
  }
  if (now >= call.deadline) {
    std::move(done)(absl::DeadlineExceededError("too late"));
    return;
  }
  if (failures_left_ > 0) {
    --failures_left_;
    std::move(done)(failure_);
    return;
  }
  const auto kept = std::make_shared<Call>();
  kept->done = std::move(done);
  Compute(call, kept.get());
  absl::Duration takes =
      pace_.call + static_cast<double>(call.num_outputs()) * pace_.pair;
  takes *= pace_.slowness *
           (1 + pace_.jitter * static_cast<double>(random_() >> 11) * 0x1p-53);
  if (computes_in_forward_) {
    queue_.Work(takes);
    open_.push_back(kept);
    Answer(kept);
    return;
  }
  open_.push_back(kept);
  // One after the other.
  busy_until_ = std::max(busy_until_, now) + takes;
  queue_.At(busy_until_, [this, kept] { Answer(kept); });
  queue_.At(call.deadline + kAfterDeadline, [this, kept] {
    Fail(kept, absl::DeadlineExceededError("no answer by the deadline"));
  });
}

bool SimulatedWorker::HasAll(const Call& call) const {
  return std::all_of(call.experts.begin(), call.experts.end(), [&](int expert) {
    return holdings_.Contains(call.layer, expert);
  });
}

bool SimulatedWorker::Close(const CallPtr& call) {
  const auto found = std::find(open_.begin(), open_.end(), call);
  if (found == open_.end()) return false;
  open_.erase(found);
  return true;
}

void SimulatedWorker::Answer(const CallPtr& call) {
  if (hangs_ || !Close(call)) return;
  if (!HasAll(*call)) {
    std::move(call->done)(absl::NotFoundError("not held any more"));
    return;
  }
  PooledBuffer buffer = Buffers()->Take(call->outputs.size() * sizeof(float));
  std::copy(call->outputs.begin(), call->outputs.end(), buffer.data<float>());
  std::move(call->done)(ExpertReply(std::move(buffer)));
}

void SimulatedWorker::Fail(const CallPtr& call, const absl::Status& status) {
  if (Close(call)) std::move(call->done)(status);
}

void SimulatedWorker::FailAll(const absl::Status& status) {
  const std::vector<CallPtr> all = std::move(open_);
  open_.clear();
  for (const CallPtr& call : all) std::move(call->done)(status);
}

}  // namespace switchyard::simulation
