#include "switchyard/plan/imbalance.h"

#include <algorithm>
#include <random>
#include <vector>

#include "base/check.h"

namespace switchyard::plan {
namespace {

constexpr int kDraws = 400;

}  // namespace

double BusiestOverMean(int64_t experts, int workers, int copies) {
  SY_CHECK(experts >= 1 && workers >= 1 && copies >= 1);
  copies = std::min(copies, workers);
  std::mt19937_64 random(1);
  std::vector<int64_t> busy(workers);
  std::vector<int> order(workers);
  for (int i = 0; i < workers; ++i) order[i] = i;
  int64_t sum_of_most = 0;
  for (int draw = 0; draw < kDraws; ++draw) {
    std::fill(busy.begin(), busy.end(), 0);
    for (int64_t expert = 0; expert < experts; ++expert) {
      // Its holders: the first `copies` of a shuffle.
      int chosen = -1;
      for (int i = 0; i < copies; ++i) {
        const auto other = i + static_cast<int>(random() % (workers - i));
        std::swap(order[i], order[other]);
        if (chosen < 0 || busy[order[i]] < busy[chosen]) chosen = order[i];
      }
      ++busy[chosen];
    }
    sum_of_most += *std::max_element(busy.begin(), busy.end());
  }
  return static_cast<double>(sum_of_most) / kDraws * workers /
         static_cast<double>(experts);
}

}  // namespace switchyard::plan
