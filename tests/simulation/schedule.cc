#include "tests/simulation/schedule.h"

#include <algorithm>
#include <cstddef>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard::simulation {
namespace {

using Kind = Event::Kind;

const char* NameOf(Kind kind) {
  switch (kind) {
    case Kind::kKill:
      return "kill";
    case Kind::kStart:
      return "start";
    case Kind::kHang:
      return "hang";
    case Kind::kGoOn:
      return "go on";
    case Kind::kSlow:
      return "slow";
    case Kind::kFast:
      return "fast";
    case Kind::kHoldings:
      return "holdings";
    case Kind::kRefuse:
      return "refuse";
    case Kind::kWrong:
      return "wrong";
    case Kind::kLeave:
      return "leave";
    case Kind::kJoin:
      return "join";
  }
  return "";
}

class Maker {
 public:
  explicit Maker(uint64_t seed) : random_(seed) { schedule_.seed = seed; }

  Schedule Make() {
    Schedule& s = schedule_;
    s.num_layers = Between(1, 2);
    s.num_experts = Between(4, 12);
    s.experts_per_row = Between(1, 4);
    s.num_steps = Between(8, 30);
    s.max_rows = OneIn(5) ? 16 : 3;
    s.hedge_burst = OneIn(3) ? 1 : 4;
    s.fallback = OneIn(6);
    if (OneIn(5)) {
      MakeWrong();
    } else {
      s.num_workers = Between(1, 6);
      s.replicas = Between(1, std::min(3, s.num_workers));
      if (OneIn(4)) s.verify_fraction = OneIn(2) ? 1 : 0.3;
      if (OneIn(3)) s.join_probes = 2;
      const int faults = Between(0, 8);
      for (int i = 0; i < faults; ++i) AddFault(Between(0, s.num_workers - 1));
    }
    std::stable_sort(
        s.events.begin(), s.events.end(),
        [](const Event& a, const Event& b) { return a.at < b.at; });
    return std::move(schedule_);
  }

 private:
  int Between(int low, int high) {
    return low + static_cast<int>(random_() % (high - low + 1));
  }
  bool OneIn(int n) { return random_() % static_cast<uint64_t>(n) == 0; }
  absl::Duration Time(int max_micros) {
    return absl::Microseconds(Between(0, max_micros));
  }
  void Add(absl::Duration at, Kind kind, int worker, int64_t argument = 0) {
    schedule_.events.push_back({at, kind, worker, argument});
  }

  // One worker computes wrongly, the others are well enough to find out: they
  // may be slow or refuse, but all are there and have everything.
  void MakeWrong() {
    schedule_.num_workers = Between(3, 5);
    schedule_.replicas = schedule_.num_workers;
    schedule_.verify_fraction = 1;
    const int wrong = Between(0, schedule_.num_workers - 1);
    if (OneIn(3)) {
      // From the beginning: it may be the one that is live unseen.
      schedule_.join_probes = 2;
      Add(absl::ZeroDuration(), Kind::kWrong, wrong);
    } else {
      Add(Time(4000), Kind::kWrong, wrong);
    }
    if (OneIn(3)) Add(Time(20000), Kind::kStart, wrong, 0);
    const int faults = Between(0, 4);
    for (int i = 0; i < faults; ++i) {
      const int worker = Between(0, schedule_.num_workers - 1);
      if (OneIn(2)) {
        AddSlow(worker);
      } else {
        Add(Time(10000), Kind::kRefuse, worker, Between(1, 3));
      }
    }
  }

  void AddSlow(int worker) {
    const absl::Duration at = Time(10000);
    Add(at, Kind::kSlow, worker, OneIn(2) ? Between(2, 10) : Between(20, 200));
    if (!OneIn(4)) Add(at + Time(100000), Kind::kFast, worker);
  }

  void AddFault(int worker) {
    const absl::Duration at = Time(15000);
    const absl::Duration until =
        at + (OneIn(3) ? Time(1'500'000) : Time(50'000));
    const int64_t holdings = OneIn(2) ? 0 : Between(1, 1'000'000);
    switch (random_() % 8) {
      case 0:
      case 1:
        Add(at, Kind::kKill, worker, OneIn(2) ? 0 : Between(0, 6000));
        if (!OneIn(4)) Add(until, Kind::kStart, worker, holdings);
        break;
      case 2:
      case 3:
        Add(at, Kind::kHang, worker);
        if (!OneIn(4)) Add(until, Kind::kGoOn, worker);
        break;
      case 4:
        AddSlow(worker);
        break;
      case 5:
        Add(at, Kind::kHoldings, worker, holdings);
        if (OneIn(2)) Add(until, Kind::kHoldings, worker, 0);
        break;
      case 6:
        Add(at, Kind::kRefuse, worker, Between(1, 10));
        break;
      default:
        Add(at, Kind::kLeave, worker);
        if (!OneIn(4)) Add(until, Kind::kJoin, worker);
    }
  }

  std::mt19937_64 random_;
  Schedule schedule_;
};

// Tries to leave out parts of `list`, large ones first.
template <typename T>
void LeaveOut(std::vector<T>* list, const std::function<bool()>& fails) {
  for (size_t part = std::max<size_t>(1, list->size() / 2); part > 0;
       part /= 2) {
    for (size_t at = 0; at < list->size();) {
      const std::vector<T> before = *list;
      const size_t end = std::min(list->size(), at + part);
      list->erase(list->begin() + static_cast<int64_t>(at),
                  list->begin() + static_cast<int64_t>(end));
      if (!fails()) {
        *list = before;
        at = end;
      }
    }
  }
}

}  // namespace

bool Schedule::has_wrong() const {
  return std::any_of(events.begin(), events.end(), [](const Event& event) {
    return event.kind == Kind::kWrong;
  });
}

Schedule ScheduleOf(uint64_t seed) { return Maker(seed).Make(); }

model::ExpertSet FirstHoldings(const Schedule& schedule, int worker) {
  model::ExpertSet set(schedule.num_layers, schedule.num_experts);
  for (int l = 0; l < schedule.num_layers; ++l) {
    for (int e = 0; e < schedule.num_experts; ++e) {
      // Replicas side by side, from a worker that differs from expert to
      // expert.
      const int first = (e * 7 + l * 3 + static_cast<int>(schedule.seed % 5)) %
                        schedule.num_workers;
      const int distance =
          (worker - first + schedule.num_workers) % schedule.num_workers;
      if (distance < schedule.replicas) set.Insert(l, e);
    }
  }
  return set;
}

model::ExpertSet HoldingsOf(const Schedule& schedule, int worker,
                            int64_t argument) {
  if (argument == 0) return FirstHoldings(schedule, worker);
  std::mt19937_64 random(static_cast<uint64_t>(argument));
  model::ExpertSet set(schedule.num_layers, schedule.num_experts);
  for (int l = 0; l < schedule.num_layers; ++l) {
    for (int e = 0; e < schedule.num_experts; ++e) {
      if (random() % 2 == 0) set.Insert(l, e);
    }
  }
  return set;
}

std::string Describe(const Schedule& s) {
  std::string text = absl::StrCat(
      "seed ", s.seed, ": ", s.num_workers, " workers, ", s.num_layers,
      " layers of ", s.num_experts, " experts, ", s.experts_per_row,
      " a row, replicas ", s.replicas, ", steps ", s.num_steps, " of up to ",
      s.max_rows, " rows, verify ", s.verify_fraction, ", join probes ",
      s.join_probes, ", hedge burst ", s.hedge_burst,
      s.fallback ? ", with fallback" : "", "\n");
  for (const Event& event : s.events) {
    absl::StrAppend(&text, "  ", absl::FormatDuration(event.at), ": ",
                    NameOf(event.kind), " w", event.worker, " ", event.argument,
                    "\n");
  }
  return text;
}

Schedule Shrink(const Schedule& schedule,
                const std::function<bool(const Schedule&)>& fails,
                int max_runs) {
  Schedule best = schedule;
  int runs = 0;
  const auto try_it = [&](const Schedule& candidate) {
    if (++runs >= max_runs || !fails(candidate)) return false;
    best = candidate;
    return true;
  };
  while (true) {
    const int before = runs;
    Schedule candidate = best;
    bool smaller = false;
    LeaveOut(&candidate.events, [&] {
      const bool failed = try_it(candidate);
      smaller = smaller || failed;
      return failed;
    });
    const auto with = [&](auto change) {
      while (true) {
        Schedule next = best;
        change(&next);
        if (!try_it(next)) return;
        smaller = true;
      }
    };
    with([](Schedule* s) { s->num_steps /= 2; });
    with([](Schedule* s) { s->num_steps -= s->num_steps > 0 ? 1 : 0; });
    with([](Schedule* s) { s->max_rows = s->max_rows > 1 ? 1 : 0; });
    with([](Schedule* s) {
      s->experts_per_row = s->experts_per_row > 1 ? s->experts_per_row - 1 : 0;
    });
    if (!smaller || runs == before || runs >= max_runs) return best;
  }
}

}  // namespace switchyard::simulation
