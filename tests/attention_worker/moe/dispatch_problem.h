// A layer-step with random rows and experts, and its answer by FakeExpertRow.

#ifndef SWITCHYARD_TESTS_ATTENTION_WORKER_MOE_DISPATCH_PROBLEM_H_
#define SWITCHYARD_TESTS_ATTENTION_WORKER_MOE_DISPATCH_PROBLEM_H_

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "absl/time/time.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "tests/testing/fake_expert_client.h"

namespace switchyard::attention_worker {

struct DispatchProblem {
  int layer = 0;
  int64_t num_rows = 0;
  int experts_per_row = 0;
  int64_t hidden_size = 0;
  std::vector<float> rows;
  std::vector<int32_t> experts;
  std::vector<int32_t> sequence_of_row;
  std::vector<absl::Time> deadlines;

  // Rows are dealt to the sequences in turn.
  static DispatchProblem Random(std::mt19937& random, int num_layers,
                                int num_experts, int64_t num_rows,
                                int experts_per_row, int64_t hidden_size,
                                int num_sequences, absl::Time deadline) {
    DispatchProblem problem;
    problem.layer = static_cast<int>(random() % num_layers);
    problem.num_rows = num_rows;
    problem.experts_per_row = experts_per_row;
    problem.hidden_size = hidden_size;
    std::normal_distribution<float> value;
    problem.rows.resize(num_rows * hidden_size);
    for (float& x : problem.rows) x = value(random);
    std::vector<int32_t> ids(num_experts);
    std::iota(ids.begin(), ids.end(), 0);
    for (int64_t t = 0; t < num_rows; ++t) {
      std::shuffle(ids.begin(), ids.end(), random);
      problem.experts.insert(problem.experts.end(), ids.begin(),
                             ids.begin() + experts_per_row);
      problem.sequence_of_row.push_back(
          static_cast<int32_t>(t % num_sequences));
    }
    problem.deadlines.assign(num_sequences, deadline);
    return problem;
  }

  DispatchRequest Request() const {
    return {.layer = layer,
            .num_rows = num_rows,
            .experts_per_row = experts_per_row,
            .hidden_size = hidden_size,
            .rows = rows,
            .quantized = {},
            .experts = experts,
            .sequence_of_row = sequence_of_row,
            .deadlines = deadlines};
  }

  // [T, K, H], as FakeExpertClient computes.
  std::vector<float> Expected() const {
    std::vector<float> out(experts.size() * hidden_size);
    for (size_t pair = 0; pair < experts.size(); ++pair) {
      testing::FakeExpertRow(
          layer, experts[pair],
          absl::MakeConstSpan(rows).subspan(
              pair / experts_per_row * hidden_size, hidden_size),
          absl::MakeSpan(out).subspan(pair * hidden_size, hidden_size));
    }
    return out;
  }
};

// [T, K, H]; NaN where there is no output.
inline std::vector<float> Outputs(const DispatchResult& result,
                                  int64_t hidden_size) {
  std::vector<float> all;
  for (const float* const pair : result.outputs) {
    if (pair == nullptr) {
      all.resize(all.size() + hidden_size,
                 std::numeric_limits<float>::quiet_NaN());
    } else {
      all.insert(all.end(), pair, pair + hidden_size);
    }
  }
  return all;
}

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_TESTS_ATTENTION_WORKER_MOE_DISPATCH_PROBLEM_H_
