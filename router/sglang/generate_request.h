// The JSON of SGLang's native POST /generate -> checked values.
//
// A list of prompts is a batch, answered by a list in the same order; all of
// them share one sampling_params. Lenient as OpenAI's requests are: null and
// empty lists are absent, unknown fields are ignored.

#ifndef SWITCHYARD_ROUTER_SGLANG_GENERATE_REQUEST_H_
#define SWITCHYARD_ROUTER_SGLANG_GENERATE_REQUEST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/optional.h"
#include "base/json.h"
#include "router/openai/request.h"

namespace switchyard::router {

struct SglangRequest {
  CompletionRequest completion;
  bool batch = false;  // answered by a list
  bool return_logprob = false;
  bool text_in_logprobs = false;
  // Of each prompt the first token whose logprob is wanted; absent: none.
  absl::optional<int64_t> logprob_start;
  std::vector<std::string> rids;  // of each prompt, or empty
};

// INVALID_ARGUMENT with the path of the field (openai/errors.h).
absl::StatusOr<SglangRequest> ParseSglangRequest(
    const Json& body, const RequestDefaults& defaults);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_SGLANG_GENERATE_REQUEST_H_
