// Chooses how many attention and expert workers to run on given machines.

#ifndef SWITCHYARD_SWITCHYARD_PLAN_PLANNER_H_
#define SWITCHYARD_SWITCHYARD_PLAN_PLANNER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "switchyard/plan/cost_model.h"

namespace switchyard::plan {

struct Request {
  Node node;      // each of them
  int nodes = 1;  // one worker a node; >= 2
  Network network;
  int copies = 2;             // of each expert
  int64_t users = 1;          // who decode at a time
  int64_t context = 8192;     // tokens of each
  int attention_workers = 0;  // 0: as many as are best
  // What is compared with: one machine with all in one process.
  bench::MachineLimits server;
};

// One number of users, on the cluster and on one server.
struct Crossing {
  int64_t users = 0;
  double cluster_tokens_per_second = 0;
  double server_tokens_per_second = 0;
};

struct Plan {
  Shape shape;
  // Fewest expert workers that hold every expert `copies` times; scaling must
  // not go below, nor, if a lost one's share is to find room, below one more.
  int least_expert_workers = 0;
  int64_t sequences = 0;  // an attention worker's, of the users
  std::vector<MemoryPart> attention_memory;
  std::vector<MemoryPart> expert_memory;
  StepTime decode;
  StepTime prefill;  // of kPrefillTokens by every attention worker
  double tokens_per_second_per_user = 0;
  double tokens_per_second = 0;
  double prefill_tokens_per_second = 0;
  std::vector<Crossing> crossings;  // users 1, 2, 4, ..., 1024
  double server_bytes = 0;          // memory of that one server, these users
};

inline constexpr int64_t kPrefillTokens = 1024;
// Of a node's memory, what processes may plan with: the rest is the system's
// and Kubernetes's.
inline constexpr double kUsableShare = 0.9;

// The shape with the most tokens a second that fits, or the wanted one.
// FAILED_PRECONDITION: none
// fits; the text says what is lacking, and how many such nodes would do.
// INVALID_ARGUMENT: a number out of range.
absl::StatusOr<Plan> MakePlan(const CostModel& model, const Request& request);

}  // namespace switchyard::plan

#endif  // SWITCHYARD_SWITCHYARD_PLAN_PLANNER_H_
