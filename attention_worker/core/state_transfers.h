// States on their way out of this worker and into it, in parts, between steps.
//
// Above: service/session_service.h, by Engine::BetweenSteps(). Below: the
// prefix cache, where what comes is kept and what goes is found.
//
// Nothing here holds memory that a step may need: what goes out is looked at by
// weak references, and given up if it is evicted meanwhile; what comes in is
// evicted like any other state that nobody runs.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_STATE_TRANSFERS_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_STATE_TRANSFERS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "attention_worker/state/prefix.h"
#include "attention_worker/state/prefix_cache.h"
#include "attention_worker/state/sequence_state.h"
#include "attention_worker/state/state_memory.h"

namespace switchyard::attention_worker {

// A prefix that owns what it is made of.
struct KeptPrefix {
  KeptPrefix() = default;
  explicit KeptPrefix(const Prefix& prefix)
      : scope(prefix.scope),
        tokens(prefix.tokens.begin(), prefix.tokens.end()) {}

  Prefix view() const { return {scope, tokens}; }

  std::string scope;
  std::vector<int32_t> tokens;
};

// A kept state. May be destroyed by any thread.
struct OutgoingState {
  KeptPrefix prefix;
  std::weak_ptr<float> fixed;
  std::vector<std::weak_ptr<float>> pages;
  int64_t bytes = 0;                 // of the fixed part and the pages
  std::shared_ptr<const void> open;  // counts in EngineLoad::transfers
};

// The step thread's alone.
class StateTransfers {
 public:
  struct Options {
    PrefixCache* cache = nullptr;   // not owned, like the next
    StateMemory* memory = nullptr;  // outlive this
    // Moves what the disk has of a prefix into the cache.
    std::function<void(const Prefix& prefix)> load_from_disk;
    // Ends a request that runs and keeps its state; the prefix of that state.
    // NOT_FOUND: no such request, or it has no state yet.
    std::function<absl::StatusOr<KeptPrefix>(const std::string& id)>
        end_request;
    std::weak_ptr<const void> open;
  };
  explicit StateTransfers(Options options) : options_(std::move(options)) {}

  // The longest kept prefix of this one. NOT_FOUND: none.
  absl::StatusOr<OutgoingState> Find(const Prefix& prefix);
  // Ends the request; its state.
  absl::StatusOr<OutgoingState> HandOver(const std::string& request_id);
  // Bytes of the state from `offset` on, as many as `out` has.
  // ABORTED: it was evicted. REQUIRES: offset + out.size() <= state.bytes.
  absl::Status Read(const OutgoingState& state, int64_t offset,
                    absl::Span<char> out) const;

  // A state of `prefix` that is to come; a number for it. ALREADY_EXISTS: it is
  // kept. RESOURCE_EXHAUSTED: larger than the whole budget.
  absl::StatusOr<int64_t> Begin(const Prefix& prefix);
  // The next bytes. RESOURCE_EXHAUSTED: there is no room, and it is given up.
  // ABORTED: it was given up before, for a request's sake.
  absl::Status Write(int64_t number, absl::string_view bytes);
  // Keeps it. REQUIRES: it is whole. ABORTED as in Write().
  absl::Status Commit(int64_t number);
  // Of no effect on one that has ended.
  void Abandon(int64_t number) { incoming_.erase(number); }

  // Gives up one that is coming. False if there is none.
  bool EvictOne();

 private:
  struct Incoming {
    KeptPrefix prefix;
    StateSnapshot snapshot;
    int64_t bytes = 0;  // written
  };
  // The block that byte `offset` of a state lies in, from 0 for the fixed part,
  // where it begins and how long it is.
  struct Place {
    int64_t block;
    int64_t begin;
    int64_t bytes;
  };
  Place PlaceOf(int64_t offset) const;
  StateBlock Take(bool fixed);

  const Options options_;
  std::map<int64_t, Incoming> incoming_;
  int64_t last_number_ = 0;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_STATE_TRANSFERS_H_
