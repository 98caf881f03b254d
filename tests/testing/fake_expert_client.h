// An ExpertClient that computes right here, and can be told to fail.

#ifndef SWITCHYARD_TESTS_TESTING_FAKE_EXPERT_CLIENT_H_
#define SWITCHYARD_TESTS_TESTING_FAKE_EXPERT_CLIENT_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "attention_worker/moe/expert_client.h"
#include "base/mutex.h"
#include "model/expert_set.h"

namespace switchyard::testing {

// What an expert of the fake makes of a row. Differs for every layer, expert
// and element, so that a row which went astray gives wrong numbers; the float
// operations are the same everywhere, so results compare by bits.
void FakeExpertRow(int layer, int expert, absl::Span<const float> in,
                   absl::Span<float> out);

// A reply that owns these.
attention_worker::ExpertReply ReplyOf(absl::Span<const float> outputs);

// A working client, not a script: every row is answered by FakeExpertRow.
// Answers in Forward unless told to Hold. Passes the contract test that the
// real clients pass (tests/attention_worker/client/expert_client_contract.h).
// Thread-safe.
class FakeExpertClient final : public attention_worker::ExpertClient {
 public:
  // A call as it came, without its rows' values.
  struct Record {
    int layer = 0;
    int64_t num_rows = 0;
    std::vector<experts::ExpertRun> runs;
    absl::Time deadline;
  };

  FakeExpertClient(std::string name, model::ExpertSet holdings)
      : name_(std::move(name)), holdings_(std::move(holdings)) {}
  // Calls still held are answered with UNAVAILABLE.
  ~FakeExpertClient() override;

  // --- What a test tells it. ---

  // The next call answers `status` and computes nothing; may be called often.
  void FailNext(absl::Status status) ABSL_LOCKS_EXCLUDED(mutex_);
  // From now on calls wait until released.
  void Hold() ABSL_LOCKS_EXCLUDED(mutex_);
  // Answers held calls, the oldest first, with what they ask for or with
  // `status` if that is not OK. ReleaseOne: false if there is none. ReleaseAll
  // ends Hold.
  bool ReleaseOne(const absl::Status& status = absl::OkStatus())
      ABSL_LOCKS_EXCLUDED(mutex_);
  void ReleaseAll(const absl::Status& status = absl::OkStatus())
      ABSL_LOCKS_EXCLUDED(mutex_);
  // False if `deadline` came first.
  bool WaitForHeld(size_t count, absl::Time deadline)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void SetHoldings(model::ExpertSet holdings) ABSL_LOCKS_EXCLUDED(mutex_);
  // As a worker that dies: nothing held, `why` is the health, held calls and
  // later ones fail with UNAVAILABLE.
  void Disconnect(absl::Status why) ABSL_LOCKS_EXCLUDED(mutex_);
  // As its successor: what FailNext said is forgotten.
  void Reconnect(model::ExpertSet holdings) ABSL_LOCKS_EXCLUDED(mutex_);
  void set_max_call_rows(int64_t rows) { max_call_rows_ = rows; }
  // What replies from now on say.
  void set_compute_time(absl::Duration time) { compute_time_ = time; }
  void set_computes_in_forward(bool value) { computes_in_forward_ = value; }

  size_t num_calls() const ABSL_LOCKS_EXCLUDED(mutex_);
  std::vector<Record> records() const ABSL_LOCKS_EXCLUDED(mutex_);

  // --- ExpertClient. ---

  std::string name() const override { return name_; }
  model::ExpertSet holdings() const override ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status health() const override ABSL_LOCKS_EXCLUDED(mutex_);
  void SetListener(std::function<void()> listener) override
      ABSL_LOCKS_EXCLUDED(mutex_);
  int64_t max_call_rows() const override { return max_call_rows_; }
  bool computes_in_forward() const override { return computes_in_forward_; }
  void Forward(const attention_worker::ExpertCall& call, Done done) override
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Held {  // the parts of the call that an answer needs, copied
    int layer = 0;
    std::vector<std::vector<float>> rows;
    std::vector<experts::ExpertRun> runs;
    Done done;
  };

  void Change(model::ExpertSet holdings, absl::Status health)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Answer(Held held, const absl::Status& status) const;

  const std::string name_;
  int64_t max_call_rows_ = std::numeric_limits<int64_t>::max();
  absl::Duration compute_time_;
  bool computes_in_forward_ = false;

  mutable Mutex mutex_;
  CondVar changed_;
  model::ExpertSet holdings_ ABSL_GUARDED_BY(mutex_);
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> listener_ ABSL_GUARDED_BY(mutex_);
  bool holding_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<absl::Status> failures_ ABSL_GUARDED_BY(mutex_);
  std::deque<Held> held_ ABSL_GUARDED_BY(mutex_);
  std::vector<Record> records_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_TESTING_FAKE_EXPERT_CLIENT_H_
