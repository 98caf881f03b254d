// How tokens are chosen and where they end: the fields of a request that
// OpenAI's API and SGLang's native one share.
//
// Above: request.h, and other APIs' requests. Below: field_reader.h.

#ifndef SWITCHYARD_ROUTER_OPENAI_SAMPLING_FIELDS_H_
#define SWITCHYARD_ROUTER_OPENAI_SAMPLING_FIELDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/json.h"
#include "model/config.h"
#include "router/openai/field_reader.h"
#include "router/openai/request.h"

namespace switchyard::router {

// An array of token ids in [0, vocab_size). `path` is for messages.
absl::StatusOr<std::vector<int32_t>> ParseTokenIds(const Json& array,
                                                   const std::string& path,
                                                   int64_t vocab_size);

// temperature, top_p, top_k, min_p and the penalties; `config` has the
// defaults.
void ReadSampling(FieldReader* reader, const model::GenerationConfig& config,
                  SamplingParams* out);

// logit_bias, allowed_token_ids, and the least length under its name there.
absl::Status ReadTokenRules(FieldReader* reader, const char* min_tokens_name,
                            int64_t vocab_size, GenerationParams* out);

// stop, stop_regex and stop_token_ids.
absl::Status ReadStop(FieldReader* reader, int64_t vocab_size,
                      GenerationParams* out);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_SAMPLING_FIELDS_H_
