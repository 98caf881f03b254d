#include "tests/simulation/simulate.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/simulation/event_queue.h"
#include "tests/simulation/plain_registry.h"
#include "tests/simulation/simulated_worker.h"

namespace switchyard::simulation {
namespace {

using attention_worker::DispatchRequest;
using attention_worker::DispatchResult;
using attention_worker::ExpertClient;
using attention_worker::ExpertDispatcher;
using attention_worker::ExpertDispatcherOptions;

constexpr int64_t kHidden = 2;
constexpr absl::Duration kLongDeadline = absl::Seconds(3);
// Of which a sequence must not fail while all its experts have a holder.
constexpr absl::Duration kEnoughTime = absl::Seconds(1);
// The last of a dispatch's deadlines may pass while this computes.
constexpr absl::Duration kComputing = absl::Milliseconds(60);
constexpr absl::Duration kOverlap = absl::Microseconds(80);

// Names as the dispatcher's metrics have them.
class Counts {
 public:
  explicit Counts(PlainRegistry* registry) : registry_(*registry) {}

  double Total(const std::string& name, const metrics::Labels& labels = {}) {
    return registry_.AddCounter(name, "", labels)->value();
  }
  double Hedges() {
    return Total("switchyard_moe_hedges_total", {{"result", "won"}}) +
           Total("switchyard_moe_hedges_total", {{"result", "lost"}});
  }
  double Ejections(const std::string& worker, const char* reason) {
    return Total("switchyard_expert_worker_ejections_total",
                 {{"worker", worker}, {"reason", reason}});
  }
  bool IsDistrusted(const std::string& worker) {
    return registry_
               .AddGauge("switchyard_expert_worker_state", "",
                         {{"worker", worker}, {"state", "distrusted"}})
               ->value() == 1;
  }
  double Alone() {
    return Total("switchyard_moe_verified_pairs_total", {{"result", "alone"}});
  }

 private:
  PlainRegistry& registry_;
};

// One layer-step, and what it needs to be checked.
struct Step {
  std::vector<float> rows;
  std::vector<int32_t> experts;
  std::vector<int32_t> sequence_of_row;
  std::vector<absl::Time> deadlines;
  DispatchRequest request;
};

class World {
 public:
  World(const Schedule& schedule, const ExpertDispatcherOptions::Faults& faults)
      : schedule_(schedule),
        random_(schedule.seed ^ 0x5eed),
        counts_(&metrics_) {
    for (int i = 0; i < schedule.num_workers; ++i) {
      workers_.push_back(std::make_shared<SimulatedWorker>(
          absl::StrCat("w", i), FirstHoldings(schedule, i),
          schedule.seed * 31 + static_cast<uint64_t>(i), &queue_,
          &violations_));
    }
    ExpertDispatcherOptions options;
    options.clients = InSet();
    options.required = All();
    options.pump = std::shared_ptr<EventQueue>(&queue_, [](EventQueue*) {});
    options.clock = &queue_;
    options.registry = &metrics_;
    options.verify_fraction = schedule.verify_fraction;
    options.seed = schedule.seed;
    options.health.join_probes = schedule.join_probes;
    options.hedge_burst = schedule.hedge_burst;
    options.faults = faults;
    if (schedule.fallback) {
      fallback_ = std::make_shared<SimulatedWorker>("local", All(), 5, &queue_,
                                                    &violations_);
      fallback_->set_computes_in_forward();
      fallback_->SetPace({.call = absl::Milliseconds(1),
                          .pair = absl::Microseconds(100),
                          .jitter = 0.1,
                          .slowness = 1});
      options.fallback = fallback_;
    }
    hedge_share_ = options.hedge_share;
    dispatcher_ = NewExpertDispatcher(std::move(options));
    for (const Event& event : schedule.events) {
      queue_.After(event.at, [this, &event] { Happen(event); });
    }
  }

  Outcome Run() {
    for (int i = 0; i < schedule_.num_steps && violations_.first().empty();
         ++i) {
      // Meanwhile another thread fetches the replies.
      queue_.RunUntil(queue_.Now() + absl::Microseconds(random_() % 400));
      DoStep(/*may_be_short=*/true);
    }
    CalmDown();
    DoStep(/*may_be_short=*/false);
    for (const absl::Status& status : last_status_) {
      if (!status.ok()) {
        violations_.Add(
            absl::StrCat("all faults are over, but: ", status.ToString()));
      }
    }
    CheckBudget();
    Outcome outcome;
    outcome.violation = violations_.first();
    outcome.digest = digest_;
    outcome.calls = NumCalls();
    outcome.hedges = static_cast<int64_t>(counts_.Hedges());
    outcome.resent_pairs = static_cast<int64_t>(
        counts_.Total("switchyard_moe_resent_pairs_total"));
    outcome.late_replies = static_cast<int64_t>(
        counts_.Total("switchyard_moe_late_replies_total"));
    outcome.failed_sequences = static_cast<int64_t>(
        counts_.Total("switchyard_moe_failed_sequences_total"));
    for (const auto& worker : workers_) {
      outcome.ejections +=
          static_cast<int64_t>(counts_.Ejections(worker->name(), "slow") +
                               counts_.Ejections(worker->name(), "hung"));
      outcome.distrusted +=
          static_cast<int64_t>(counts_.Ejections(worker->name(), "wrong"));
    }
    return outcome;
  }

 private:
  model::ExpertSet All() const {
    model::ExpertSet all(schedule_.num_layers, schedule_.num_experts);
    for (int l = 0; l < schedule_.num_layers; ++l) {
      for (int e = 0; e < schedule_.num_experts; ++e) all.Insert(l, e);
    }
    return all;
  }

  std::vector<std::shared_ptr<ExpertClient>> InSet() const {
    std::vector<std::shared_ptr<ExpertClient>> clients;
    for (const auto& worker : workers_) {
      if (worker->in_set()) clients.push_back(worker);
    }
    return clients;
  }

  void SetInSet(int worker, bool in_set) {
    workers_[worker]->set_in_set(in_set);
    dispatcher_->SetClients(InSet());
  }

  void Happen(const Event& event) {
    SimulatedWorker& worker = *workers_[event.worker];
    const auto holdings = [&] {
      return HoldingsOf(schedule_, event.worker, event.argument);
    };
    switch (event.kind) {
      case Event::Kind::kKill:
        worker.Kill(absl::Microseconds(event.argument));
        break;
      case Event::Kind::kStart:
        worker.Start(holdings());
        break;
      case Event::Kind::kHang:
        worker.Hang();
        break;
      case Event::Kind::kGoOn:
        worker.GoOn();
        break;
      case Event::Kind::kSlow:
        worker.SetPace({.slowness = static_cast<double>(event.argument)});
        break;
      case Event::Kind::kFast:
        worker.SetPace({});
        break;
      case Event::Kind::kHoldings:
        worker.SetHoldings(holdings());
        break;
      case Event::Kind::kRefuse:
        worker.FailNext(static_cast<int>(event.argument),
                        event.argument % 2 == 0
                            ? absl::ResourceExhaustedError("the queue is full")
                            : absl::UnavailableError("refused"));
        break;
      case Event::Kind::kWrong:
        worker.ComputeWrongly();
        break;
      case Event::Kind::kLeave:
        SetInSet(event.worker, false);
        break;
      case Event::Kind::kJoin:
        SetInSet(event.worker, true);
        break;
    }
  }

  // Everybody is there, well, and has what it had at first.
  void CalmDown() {
    queue_.RunUntil(queue_.Now() + absl::Seconds(2));
    for (int i = 0; i < schedule_.num_workers; ++i) {
      workers_[i]->SetPace({});
      workers_[i]->Start(FirstHoldings(schedule_, i));
      if (!workers_[i]->in_set()) SetInSet(i, true);
    }
    queue_.RunUntil(queue_.Now() + absl::Seconds(1));
  }

  Step MakeStep(bool may_be_short) {
    Step step;
    const int64_t rows =
        schedule_.max_rows == 0
            ? 0
            : 1 + static_cast<int64_t>(random_() % schedule_.max_rows);
    const int sequences = 1 + static_cast<int>(random_() % 3);
    for (int s = 0; s < sequences; ++s) {
      const bool is_short = may_be_short && random_() % 8 == 0;
      step.deadlines.push_back(
          queue_.Now() + (is_short ? absl::Microseconds(500 + random_() % 20000)
                                   : kLongDeadline));
    }
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < kHidden; ++i) {
        step.rows.push_back(static_cast<float>(random_() % 100000));
      }
      std::vector<int32_t> ids;
      while (static_cast<int>(ids.size()) < schedule_.experts_per_row) {
        const auto id = static_cast<int32_t>(random_() % schedule_.num_experts);
        if (std::find(ids.begin(), ids.end(), id) == ids.end()) {
          ids.push_back(id);
        }
      }
      step.experts.insert(step.experts.end(), ids.begin(), ids.end());
      step.sequence_of_row.push_back(static_cast<int32_t>(row % sequences));
    }
    step.request = {.layer = static_cast<int>(random_() % schedule_.num_layers),
                    .num_rows = rows,
                    .experts_per_row = schedule_.experts_per_row,
                    .hidden_size = kHidden,
                    .rows = step.rows,
                    .quantized = {},
                    .experts = step.experts,
                    .sequence_of_row = step.sequence_of_row,
                    .deadlines = step.deadlines};
    return step;
  }

  void DoStep(bool may_be_short) {
    if (schedule_.experts_per_row == 0) return;
    const Step step = MakeStep(may_be_short);
    const absl::Time begin = queue_.Now();
    std::vector<int64_t> calls_to_wrong;
    for (const auto& worker : workers_) {
      calls_to_wrong.push_back(
          counts_.IsDistrusted(worker->name()) ? worker->num_calls() : -1);
    }
    const double alone = counts_.Alone();
    const DispatchResult result =
        dispatcher_->Dispatch(step.request, [this] { queue_.Work(kOverlap); });
    CheckEnd(step);
    const bool all_asked =
        schedule_.verify_fraction == 1 && counts_.Alone() == alone;
    for (size_t s = 0; s < step.deadlines.size(); ++s) {
      if (result.sequence_status[s].ok()) {
        CheckOutputs(step, result, s, all_asked);
      } else {
        CheckFailure(step, s, result.sequence_status[s], begin);
      }
    }
    for (size_t i = 0; i < workers_.size(); ++i) {
      const std::string name = workers_[i]->name();
      if (counts_.IsDistrusted(name) && !workers_[i]->wrong()) {
        violations_.Add(absl::StrCat(name, " is distrusted for nothing"));
      }
      // Of a process that was distrusted before the step and still is.
      if (calls_to_wrong[i] >= 0 && counts_.IsDistrusted(name) &&
          workers_[i]->num_calls() > calls_to_wrong[i]) {
        violations_.Add(absl::StrCat(name, " is distrusted and gets calls"));
      }
      Digest(static_cast<uint64_t>(workers_[i]->num_calls()));
    }
    Digest(static_cast<uint64_t>(absl::ToUnixNanos(queue_.Now())));
    last_status_.assign(result.sequence_status.begin(),
                        result.sequence_status.end());
  }

  void CheckEnd(const Step& step) {
    if (queue_.stuck()) violations_.Add("a dispatch waits for nothing");
    const absl::Time last =
        *std::max_element(step.deadlines.begin(), step.deadlines.end());
    if (queue_.Now() > last + kComputing) {
      violations_.Add(absl::StrCat("a dispatch ended ",
                                   absl::FormatDuration(queue_.Now() - last),
                                   " after its last deadline"));
    }
  }

  void CheckOutputs(const Step& step, const DispatchResult& result,
                    size_t sequence, bool all_asked) {
    for (size_t pair = 0; pair < step.experts.size(); ++pair) {
      const size_t row = pair / step.request.experts_per_row;
      if (static_cast<size_t>(step.sequence_of_row[row]) != sequence) continue;
      const float* const output = result.outputs[pair];
      if (output == nullptr) {
        violations_.Add("a sequence without error lacks an output");
        return;
      }
      float right[kHidden];
      RightAnswer(
          step.request.layer, step.experts[pair],
          absl::MakeConstSpan(step.rows).subspan(row * kHidden, kHidden),
          absl::MakeSpan(right));
      const bool same = std::memcmp(right, output, sizeof(right)) == 0;
      if (!same && (all_asked || !schedule_.has_wrong())) {
        violations_.Add(absl::StrCat("a wrong output of layer ",
                                     step.request.layer, " expert ",
                                     step.experts[pair]));
      }
      uint64_t bits = 0;
      std::memcpy(&bits, output, sizeof(bits));
      Digest(bits);
    }
  }

  void CheckFailure(const Step& step, size_t sequence,
                    const absl::Status& status, absl::Time begin) {
    Digest(static_cast<uint64_t>(status.code()));
    if (!absl::StrContains(status.message(), "expert")) {
      violations_.Add(
          absl::StrCat("a failure names no expert: ", status.ToString()));
    }
    if (absl::IsDataLoss(status) && schedule_.has_wrong()) return;
    if (!absl::IsDeadlineExceeded(status) ||
        queue_.Now() < step.deadlines[sequence]) {
      violations_.Add(
          absl::StrCat("failed before its deadline: ", status.ToString()));
      return;
    }
    if (step.deadlines[sequence] - begin < kEnoughTime) return;
    for (size_t pair = 0; pair < step.experts.size(); ++pair) {
      const size_t row = pair / step.request.experts_per_row;
      if (static_cast<size_t>(step.sequence_of_row[row]) != sequence) continue;
      const int expert = step.experts[pair];
      const bool held = std::any_of(
          workers_.begin(), workers_.end(), [&](const auto& worker) {
            return worker->well() && worker->undisturbed_since() <= begin &&
                   worker->holdings().Contains(step.request.layer, expert);
          });
      if (!held && fallback_ == nullptr) return;
    }
    violations_.Add(absl::StrCat("failed though every expert has a holder: ",
                                 status.ToString()));
  }

  void CheckBudget() {
    const double hedges = counts_.Hedges();
    if (hedges > schedule_.hedge_burst +
                     hedge_share_ * static_cast<double>(NumCalls())) {
      violations_.Add(absl::StrCat(hedges, " hedges of ", NumCalls(),
                                   " calls are beyond the budget"));
    }
  }

  int64_t NumCalls() const {
    int64_t calls = fallback_ == nullptr ? 0 : fallback_->num_calls();
    for (const auto& worker : workers_) calls += worker->num_calls();
    return calls;
  }

  void Digest(uint64_t value) {
    digest_ = (digest_ ^ value) * 0x100000001b3 + (digest_ >> 29);
  }

  const Schedule schedule_;
  std::mt19937_64 random_;
  EventQueue queue_;
  Violations violations_;
  PlainRegistry metrics_;
  Counts counts_;
  std::vector<std::shared_ptr<SimulatedWorker>> workers_;
  std::shared_ptr<SimulatedWorker> fallback_;
  double hedge_share_ = 0;
  std::unique_ptr<ExpertDispatcher> dispatcher_;
  std::vector<absl::Status> last_status_;
  uint64_t digest_ = 0xcbf29ce484222325;
};

}  // namespace

Outcome Simulate(const Schedule& schedule,
                 const ExpertDispatcherOptions::Faults& faults) {
  return World(schedule, faults).Run();
}

}  // namespace switchyard::simulation
