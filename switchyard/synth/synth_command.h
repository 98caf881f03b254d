// `switchyard synth`: a model of random weights, so that everyone can repeat a
// measurement without the real one.

#ifndef SWITCHYARD_SWITCHYARD_SYNTH_SYNTH_COMMAND_H_
#define SWITCHYARD_SWITCHYARD_SYNTH_SYNTH_COMMAND_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/status/status.h"

namespace switchyard {

struct SynthOptions {
  // The geometry: a config.json, or Qwen3-Next-80B-A3B's if empty; then
  // `overrides`, "key=value,key=value" in JSON's spelling; then num_layers, if
  // positive.
  std::string config_path;
  std::string overrides;
  int num_layers = 0;
  bool mtp = false;    // with an MTP head
  std::string format;  // hf-bf16, or as `switchyard convert`'s --format
  std::string out_dir;
  std::string tokenizer_dir;  // copied from; empty: one is made
  uint64_t seed = 1;
  int threads = 0;  // 0: as many as this process may use
};

// Weights as model/conversion/random_source.h says. In hf-bf16 the same that
// the other formats are made of: `convert` gives the same bits. Tells on `out`
// how far it is. INVALID_ARGUMENT: an option or config value out of range; or
// as model::WriteConvertedCheckpoint and WriteHuggingFaceCheckpoint.
absl::Status RunSynth(const SynthOptions& options, std::ostream& out,
                      bool terminal);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_SYNTH_SYNTH_COMMAND_H_
