// The calls of one worker: those that wait to be sent, and those in flight.

#ifndef SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_CALLS_H_
#define SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_CALLS_H_

#include <cstdint>
#include <deque>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/optional.h"
#include "attention_worker/client/expert_codec.h"
#include "attention_worker/moe/expert_client.h"

namespace switchyard::attention_worker {

// Bounded in rows. Calls nobody back: it hands out whom to call.
// Unsynchronised.
class ExpertCalls {
 public:
  // A call on its way to the worker.
  struct Outgoing {
    EncodedCall encoded;
    absl::Time deadline;
    absl::Time start;  // of Forward
    int64_t num_rows = 0;
    int64_t num_outputs = 0;
    ExpertClient::Done done;
  };
  // A call that is there.
  struct Sent {
    ExpertClient::Done done;  // null: given up; the rows still count
    absl::Time deadline;
    absl::Time start;
    absl::Time written;
    int64_t num_rows = 0;
    int64_t num_outputs = 0;
  };
  struct Failure {
    ExpertClient::Done done;
    absl::Status status;
  };

  explicit ExpertCalls(int64_t max_queued_rows)
      : max_queued_rows_(max_queued_rows) {}

  // RESOURCE_EXHAUSTED: this many rows more cannot wait here, or will never fit
  // into the worker, which takes `max_rows_in_flight` at a time.
  absl::Status CheckRoom(int64_t num_rows, int64_t max_rows_in_flight) const;

  void Add(Outgoing call);

  // The oldest that waits, if the worker has room for it: it is in flight from
  // now on, under encoded.header's sequence. Its `done` is kept here.
  absl::optional<Outgoing> NextToSend(int64_t max_rows_in_flight,
                                      absl::Time now);

  // The call in flight that an answer belongs to; null if there is none.
  const Sent* Find(uint64_t sequence) const;
  // Takes it out. REQUIRES: Find(sequence) != nullptr.
  Sent Take(uint64_t sequence);

  // Gives up what is too late at `now`.
  std::vector<Failure> Expire(absl::Time now);
  // Gives up everything, and forgets what is in flight.
  std::vector<Failure> FailAll(const absl::Status& why);

  // The earliest deadline of a call that is not given up.
  absl::Time next_deadline() const;

 private:
  const int64_t max_queued_rows_;
  std::deque<Outgoing> waiting_;
  std::unordered_map<uint64_t, Sent> sent_;
  int64_t waiting_rows_ = 0;
  int64_t sent_rows_ = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CLIENT_EXPERT_CALLS_H_
