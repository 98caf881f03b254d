// An expert worker, its process and the network to it, seen through the client
// that the dispatcher has of it.

#ifndef SWITCHYARD_TESTS_SIMULATION_SIMULATED_WORKER_H_
#define SWITCHYARD_TESTS_SIMULATION_SIMULATED_WORKER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "attention_worker/moe/expert_client.h"
#include "model/expert_set.h"
#include "tests/simulation/event_queue.h"

namespace switchyard::simulation {

// What an expert makes of a row: a hash of (layer, expert, row), so that no
// answer to another question is right by chance.
void RightAnswer(int layer, int expert, absl::Span<const float> row,
                 absl::Span<float> out);

// What goes wrong in a world, so far: the first one counts.
class Violations {
 public:
  void Add(std::string what) {
    if (first_.empty()) first_ = std::move(what);
  }
  const std::string& first() const { return first_; }

 private:
  std::string first_;
};

// As client/grpc_expert_client.h promises: every call is answered once, soon
// after its deadline at the latest; holdings are empty while the process is not
// reachable, and whoever listens hears of every change. One thread.
class SimulatedWorker final : public attention_worker::ExpertClient {
 public:
  // How fast it computes and answers.
  struct Pace {
    absl::Duration call = absl::Microseconds(120);
    absl::Duration pair = absl::Microseconds(15);
    double jitter = 0.3;  // up to so much more, at random
    double slowness = 1;  // times all of it
  };

  // `queue` and `violations` outlive this.
  SimulatedWorker(std::string name, model::ExpertSet holdings, uint64_t seed,
                  EventQueue* queue, Violations* violations);

  // --- What happens to it. ---

  // The process is gone, and whoever waits for it hears that `seen_after`.
  void Kill(absl::Duration seen_after);
  // Another process with these.
  void Start(model::ExpertSet holdings);
  // It computes and answers nothing until it goes on; nothing else is seen.
  void Hang();
  void GoOn();
  // It has others now, and says so; calls on their way for what is gone fail.
  void SetHoldings(model::ExpertSet holdings);
  // From now on this process's answers have a wrong bit.
  void ComputeWrongly() {
    Disturbed();
    wrong_ = true;
  }
  // The next calls fail with this.
  void FailNext(int calls, absl::Status status) {
    Disturbed();
    failures_left_ = calls;
    failure_ = std::move(status);
  }
  void SetPace(const Pace& pace) {
    Disturbed();
    pace_ = pace;
  }
  void set_in_set(bool in_set) {
    Disturbed();
    in_set_ = in_set;
  }
  // A client of this name computes in Forward: local weights.
  void set_computes_in_forward() { computes_in_forward_ = true; }

  // Answers, and rightly, if it is asked.
  bool well() const {
    return up_ && in_set_ && !hangs_ && !wrong_ && failures_left_ == 0 &&
           pace_.slowness <= 1;
  }
  bool in_set() const { return in_set_; }
  bool wrong() const { return wrong_; }
  int64_t num_calls() const { return num_calls_; }
  int64_t num_pairs() const { return num_pairs_; }
  // Nothing has happened to it since then.
  absl::Time undisturbed_since() const { return undisturbed_since_; }

  // --- ExpertClient. ---
  std::string name() const override { return name_; }
  model::ExpertSet holdings() const override {
    return up_ ? holdings_ : model::ExpertSet();
  }
  std::string instance_id() const override { return instance_id_; }
  absl::Status health() const override {
    return up_ ? absl::OkStatus() : absl::UnavailableError("killed");
  }
  void SetListener(std::function<void()> listener) override {
    listener_ = std::move(listener);
  }
  bool computes_in_forward() const override { return computes_in_forward_; }
  void Forward(const attention_worker::ExpertCall& call, Done done) override;

 private:
  struct Call {
    Done done;
    int layer = 0;
    std::vector<int> experts;
    std::vector<float> outputs;
  };
  using CallPtr = std::shared_ptr<Call>;

  void Disturbed() { undisturbed_since_ = queue_.Now(); }
  void Tell() {
    if (listener_) listener_();
  }
  void Check(const attention_worker::ExpertCall& call);
  void Compute(const attention_worker::ExpertCall& call, Call* kept) const;
  void Answer(const CallPtr& call);
  void Fail(const CallPtr& call, const absl::Status& status);
  void FailAll(const absl::Status& status);
  // Takes it out of open_; false: it was answered before.
  bool Close(const CallPtr& call);
  bool HasAll(const Call& call) const;

  const std::string name_;
  EventQueue& queue_;
  Violations& violations_;
  std::mt19937_64 random_;
  Pace pace_;
  model::ExpertSet holdings_;
  int process_ = 1;
  std::string instance_id_;
  bool up_ = true;
  bool killed_ = false;  // seen or not
  bool hangs_ = false;
  bool wrong_ = false;
  bool in_set_ = true;
  bool computes_in_forward_ = false;
  int failures_left_ = 0;
  absl::Status failure_;
  std::function<void()> listener_;
  std::vector<CallPtr> open_;
  absl::Time busy_until_ = absl::InfinitePast();
  absl::Time undisturbed_since_ = absl::InfinitePast();
  int64_t num_calls_ = 0;
  int64_t num_pairs_ = 0;
};

}  // namespace switchyard::simulation

#endif  // SWITCHYARD_TESTS_SIMULATION_SIMULATED_WORKER_H_
