// The edges of all histograms, written out: computed ones print as
// 2.0000000000000003e-06.

#include <vector>

#include "metrics/registry.h"

namespace switchyard::metrics {

std::vector<double> TimeToFirstTokenBuckets() {
  return {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
          1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
}

std::vector<double> InterTokenBuckets() {
  return {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
          .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
}

std::vector<double> RequestSecondsBuckets() {
  return {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
          30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
}

std::vector<double> ShortSecondsBuckets() {
  return {1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, .001, .002,
          .005, .01,  .02,  .05,  .1,   .2,   .5,   1,    2,    5,    10};
}

std::vector<double> TokenCountBuckets(double max) {
  std::vector<double> edges;
  for (double decade = 1;; decade *= 10) {
    for (const double step : {1, 2, 5}) {
      if (step * decade > max) return edges;
      edges.push_back(step * decade);
    }
  }
}

}  // namespace switchyard::metrics
