// A dispatcher over fakes, for the tests of this folder.

#ifndef SWITCHYARD_TESTS_ATTENTION_WORKER_MOE_DISPATCHER_FIXTURE_H_
#define SWITCHYARD_TESTS_ATTENTION_WORKER_MOE_DISPATCHER_FIXTURE_H_

#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "attention_worker/moe/expert_dispatcher.h"
#include "gtest/gtest.h"
#include "metrics/registry.h"
#include "model/expert_set.h"
#include "tests/attention_worker/moe/dispatch_problem.h"
#include "tests/testing/fake_expert_client.h"

namespace switchyard::attention_worker {

constexpr int kLayers = 3;
constexpr int kExperts = 16;
constexpr int kPerRow = 4;
constexpr int64_t kHidden = 8;

// No test takes this long unless it fails.
inline absl::Time Soon() { return absl::Now() + absl::Seconds(20); }
inline void Nothing() {}

inline model::ExpertSet Everything() {
  model::ExpertSet all(kLayers, kExperts);
  for (int l = 0; l < kLayers; ++l) {
    for (int e = 0; e < kExperts; ++e) all.Insert(l, e);
  }
  return all;
}

// Experts [begin, end) of every layer.
inline model::ExpertSet Range(int begin, int end) {
  model::ExpertSet some(kLayers, kExperts);
  for (int l = 0; l < kLayers; ++l) {
    for (int e = begin; e < end; ++e) some.Insert(l, e);
  }
  return some;
}

class DispatcherFixture : public ::testing::Test {
 protected:
  // The test keeps it alive.
  testing::FakeExpertClient* Add(std::string name, model::ExpertSet holdings) {
    clients_.push_back(std::make_shared<testing::FakeExpertClient>(
        std::move(name), std::move(holdings)));
    options_.clients.push_back(clients_.back());
    return clients_.back().get();
  }

  std::unique_ptr<ExpertDispatcher> Make() {
    options_.required = Everything();
    options_.registry = registry_.get();
    // What a test can tell beforehand.
    if (!options_.policy) options_.policy = FirstHolder;
    return NewExpertDispatcher(options_);
  }

  DispatchProblem Problem(int64_t num_rows, int num_sequences = 1) {
    return DispatchProblem::Random(random_, kLayers, kExperts, num_rows,
                                   kPerRow, kHidden, num_sequences, Soon());
  }

  // One row of one sequence that wants just these experts.
  static DispatchProblem RowsFor(
      std::vector<std::vector<int32_t>> experts_of_row) {
    DispatchProblem problem;
    problem.layer = 2;
    problem.num_rows = static_cast<int64_t>(experts_of_row.size());
    problem.experts_per_row = static_cast<int>(experts_of_row[0].size());
    problem.hidden_size = kHidden;
    for (size_t row = 0; row < experts_of_row.size(); ++row) {
      for (int i = 0; i < kHidden; ++i) {
        problem.rows.push_back(static_cast<float>(row * 100 + i));
      }
      problem.experts.insert(problem.experts.end(), experts_of_row[row].begin(),
                             experts_of_row[row].end());
      problem.sequence_of_row.push_back(static_cast<int32_t>(row));
      problem.deadlines.push_back(Soon());
    }
    return problem;
  }

  double CounterValue(const std::string& name) {
    // The same name gives the same handle; the help must be the same too.
    const std::string text = registry_->Expose();
    const size_t at = text.find("\n" + name + " ");
    if (at == std::string::npos) return -1;
    return std::stod(text.substr(at + name.size() + 2));
  }

  std::mt19937 random_{7};
  std::unique_ptr<metrics::Registry> registry_ = metrics::Registry::Create();
  std::vector<std::shared_ptr<testing::FakeExpertClient>> clients_;
  ExpertDispatcherOptions options_;
};

}  // namespace switchyard::attention_worker

#endif  // SWITCHYARD_TESTS_ATTENTION_WORKER_MOE_DISPATCHER_FIXTURE_H_
