// Among whom a request's prefix may be shared: the fields of a request that
// keep others from telling, by how fast an answer comes, what somebody asked.
//
// Above: request.h, SGLang's requests. Below: field_reader.h. The attention
// worker keeps the scopes apart.

#ifndef SWITCHYARD_ROUTER_OPENAI_CACHE_SCOPE_H_
#define SWITCHYARD_ROUTER_OPENAI_CACHE_SCOPE_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "router/openai/field_reader.h"

namespace switchyard::router {

// TokenRequest::cache_scope of a salt and a key, either of which may be "": a
// hash, so that no worker, log or file has what the client may want to keep
// secret. "" of two times "".
std::string CacheScope(absl::string_view cache_salt,
                       absl::string_view extra_key);

// cache_salt (vLLM, SGLang) and extra_key (SGLang): strings, or lists with one
// for each of `num_prompts` prompts. The prompts' scopes: none if the request
// names none, else one for each prompt. INVALID_ARGUMENT names the field; a
// salt of "" is one, as with vLLM: who sends it is mistaken about what it does.
absl::StatusOr<std::vector<std::string>> ReadCacheScopes(FieldReader* reader,
                                                         size_t num_prompts);

}  // namespace switchyard::router

#endif  // SWITCHYARD_ROUTER_OPENAI_CACHE_SCOPE_H_
