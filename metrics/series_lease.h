// Series of what comes and goes, as workers do under addresses that nobody has
// a second time: without leases a process that lives for months keeps them all.

#ifndef SWITCHYARD_METRICS_SERIES_LEASE_H_
#define SWITCHYARD_METRICS_SERIES_LEASE_H_

#include <memory>
#include <string>

#include "absl/time/time.h"
#include "base/clock.h"
#include "metrics/registry.h"

namespace switchyard::metrics {

// Taken before handles of series with a label and a value are made, and kept as
// long as they are used. Any number may be taken for one value. Destroyed by
// any thread, before the registry. Null if the registry is not
// Registry::Create's: then nothing is ever forgotten.
using SeriesLease = std::shared_ptr<const void>;
SeriesLease LeaseSeries(Registry* registry, const std::string& label,
                        const std::string& value);

// From now on series whose leases have all been gone for `after` are removed,
// and their handles are no more: who comes back sooner counts on, who comes
// later counts from zero. Series without leases stay. They are looked for
// before each exposition, and when the first lease of a value is taken. Once
// for a registry; `clock` outlives it.
void ForgetUnleasedSeries(Registry* registry, const Clock* clock,
                          absl::Duration after);

}  // namespace switchyard::metrics

#endif  // SWITCHYARD_METRICS_SERIES_LEASE_H_
