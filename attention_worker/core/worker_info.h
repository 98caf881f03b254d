// What an attention worker says about itself.

#ifndef SWITCHYARD_ATTENTION_WORKER_CORE_WORKER_INFO_H_
#define SWITCHYARD_ATTENTION_WORKER_CORE_WORKER_INFO_H_

#include <cstdint>
#include <string>

#include "attention_worker/core/engine.h"

namespace switchyard::attention_worker {

// Moves: kLoading -> kReady <-> kWaitingExperts; any -> kDraining, which is
// last.
enum class WorkerState {
  kLoading,
  kReady,           // every expert has a holder
  kWaitingExperts,  // loaded, but some experts have no holder
  kDraining,        // takes no new requests
};

// "LOADING", "READY", ... as in proto/generation.proto.
inline const char* WorkerStateName(WorkerState state) {
  switch (state) {
    case WorkerState::kLoading:
      return "LOADING";
    case WorkerState::kReady:
      return "READY";
    case WorkerState::kWaitingExperts:
      return "WAITING_EXPERTS";
    case WorkerState::kDraining:
      return "DRAINING";
  }
  return "?";
}

struct WorkerInfo {
  WorkerState state = WorkerState::kLoading;
  std::string instance_id;        // new with every process
  std::string model_fingerprint;  // empty until the checkpoint was opened
  std::string version;
  int64_t vocab_size = 0;
  int64_t max_model_len = 0;
  double loading_progress = 0;  // 0 to 1
  EngineLoad load;
  // Of a session's state, once loaded.
  int64_t state_fixed_bytes = 0;
  int64_t state_token_bytes = 0;  // and for each token
  std::string message;            // for people: what is missing, which experts
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_ATTENTION_WORKER_CORE_WORKER_INFO_H_
