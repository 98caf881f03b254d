// A tokenizer for a model that has none: bytes, and names for the other ids.

#ifndef SWITCHYARD_SWITCHYARD_SYNTH_BYTE_TOKENIZER_H_
#define SWITCHYARD_SWITCHYARD_SYNTH_BYTE_TOKENIZER_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "model/conversion/convert.h"

namespace switchyard {

// vocab.json, merges.txt, tokenizer_config.json, chat_template.jinja and
// generation_config.json. Text becomes a token for each byte (ids 0 to 255, no
// merges); an id above prints as "~id~"; ChatML's three control tokens are the
// last three ids, or from 151643 on, as Qwen's, in a vocabulary of 151,936.
// INVALID_ARGUMENT: vocab_size is below 259.
absl::StatusOr<std::vector<model::CompanionFile>> ByteTokenizerFiles(
    int64_t vocab_size);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_SYNTH_BYTE_TOKENIZER_H_
