// What a cluster of a given shape needs in memory, and how fast it would be:
// arithmetic on a model's geometry and a machine's limits. Measures nothing.
//
// The model of time. Attention workers step on their own, each with its share
// of the users. A step is the roofline of the parts that an attention worker
// computes (bench/accounting.h), and for each layer one dispatch: a fixed time,
// the bytes on its wire, and the busiest expert worker's roofline; the shared
// expert is computed meanwhile. Expert workers serve several attention workers
// in turn: calls wait as in an M/D/1 queue, and together they cannot ask for
// more time than there is. Drafts and caches, which make it faster, are left
// out.

#ifndef SWITCHYARD_SWITCHYARD_PLAN_COST_MODEL_H_
#define SWITCHYARD_SWITCHYARD_PLAN_COST_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/kv_rows.h"
#include "model/config.h"
#include "model/weight_formats.h"
#include "switchyard/bench/accounting.h"

namespace switchyard::plan {

// One machine. Rates are of the whole machine, as a benchmark measures them.
struct Node {
  double ram_bytes = 0;
  bench::MachineLimits limits;
};

// Between machines.
struct Network {
  std::string name;
  // One direction, through the software of both ends.
  double bytes_per_second = 0;
  // A dispatch beyond its bytes and its computing: encoding, system calls,
  // waking up at both ends, the wire's latency both ways.
  double dispatch_seconds = 0;
};

struct Shape {
  int attention_workers = 1;
  int expert_workers = 1;
  int copies = 1;  // of each expert
};

// Where a step's time goes, in seconds; they add up to the step.
struct StepTime {
  double attention = 0;  // all that an attention worker computes and waits for
  double experts = 0;    // the busiest expert worker computing
  double wire = 0;       // bytes
  double dispatch = 0;   // the fixed part of dispatches
  double queueing = 0;   // for expert workers that are busy with others' rows
  // Share of time that the mean expert worker computes.
  double expert_busy = 0;

  double Total() const {
    return attention + experts + wire + dispatch + queueing;
  }
  // The greatest part, in words.
  std::string Bound() const;
};

struct MemoryPart {
  std::string what;
  double bytes = 0;
};
double Sum(const std::vector<MemoryPart>& parts);

// Immutable.
class CostModel {
 public:
  // `model_config` with its tensors in `formats`; sources are bf16. Errors are
  // Accounting's.
  static absl::StatusOr<CostModel> Create(
      const model::ModelConfig& model_config,
      const model::WeightFormats& formats, kernels::KvDType kv_dtype);

  // Bytes of all routed experts, once; of one; of all other weights; and of
  // one sequence's state after `context` tokens.
  double ExpertBytes() const { return expert_bytes_; }
  double OneExpertBytes() const;
  double DenseBytes() const { return dense_bytes_; }
  double SequenceBytes(int64_t context) const;
  const model::ModelConfig& config() const { return config_; }

  // Parts of a process's resident memory. `sequences`: that decode at a time in
  // this process, each of `context` tokens.
  std::vector<MemoryPart> AttentionWorkerMemory(int64_t sequences,
                                                int64_t context) const;
  std::vector<MemoryPart> ExpertWorkerMemory(const Shape& shape) const;

  // A decoding step in which `users` sequences, spread evenly, advance by one
  // token each, at `context`.
  StepTime DecodeStep(const Shape& shape, const Node& node,
                      const Network& network, int64_t users,
                      int64_t context) const;
  // A step in which one sequence of every attention worker reads `tokens`.
  StepTime PrefillStep(const Shape& shape, const Node& node,
                       const Network& network, int64_t tokens) const;
  // The same in one process, that has everything.
  double DecodeSecondsInProcess(const bench::MachineLimits& limits,
                                int64_t users, int64_t context) const;
  double PrefillSecondsInProcess(const bench::MachineLimits& limits,
                                 int64_t tokens) const;

 private:
  CostModel(const model::ModelConfig& config, bench::Accounting accounting,
            kernels::KvDType kv_dtype);
  StepTime Step(const Shape& shape, const Node& node, const Network& network,
                const bench::StepLoad& load) const;

  model::ModelConfig config_;
  bench::Accounting accounting_;
  kernels::KvDType kv_dtype_;
  double expert_bytes_ = 0;
  double dense_bytes_ = 0;
  int64_t moe_layers_ = 0;
  // On the wire: a row to a worker, and an expert's output of it.
  double row_bytes_ = 0;
  double output_bytes_ = 0;
};

}  // namespace switchyard::plan

#endif  // SWITCHYARD_SWITCHYARD_PLAN_COST_MODEL_H_
