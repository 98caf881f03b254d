// The config.json of a synthetic model.

#ifndef SWITCHYARD_SWITCHYARD_SYNTH_SYNTH_CONFIG_H_
#define SWITCHYARD_SWITCHYARD_SYNTH_SYNTH_CONFIG_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard {

// `base_json` (empty: Qwen3-Next-80B-A3B's) with `overrides` laid over it
// ("hidden_size=512,rope_scaling=null") and, if positive, num_layers; a list of
// layer types is cut to fit or left to the interval. INVALID_ARGUMENT: no JSON
// object, an override without "=" or whose value is no JSON, or as
// ParseModelConfig.
absl::StatusOr<std::string> SynthConfig(absl::string_view base_json,
                                        absl::string_view overrides,
                                        int num_layers);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_SYNTH_SYNTH_CONFIG_H_
