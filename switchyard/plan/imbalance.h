// How unevenly a layer's experts fall on those who hold them.

#ifndef SWITCHYARD_SWITCHYARD_PLAN_IMBALANCE_H_
#define SWITCHYARD_SWITCHYARD_PLAN_IMBALANCE_H_

#include <cstdint>

namespace switchyard::plan {

// The busiest worker's experts over the mean, if `experts` of a layer, chosen
// at random, are computed by `workers` of which each expert is held by
// `copies`, and goes to the least busy of those. The mean of 400 drawn layers;
// equal arguments, equal results. REQUIRES: all >= 1.
double BusiestOverMean(int64_t experts, int workers, int copies);

}  // namespace switchyard::plan

#endif  // SWITCHYARD_SWITCHYARD_PLAN_IMBALANCE_H_
