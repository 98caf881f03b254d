#include "router/openai/cache_scope.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/sha256.h"
#include "router/openai/errors.h"

namespace switchyard::router {
namespace {

constexpr size_t kMaxBytes = 4096;

struct Field {
  const char* name;
  bool may_be_empty;
};
constexpr Field kSalt = {.name = "cache_salt", .may_be_empty = false};
constexpr Field kKey = {.name = "extra_key", .may_be_empty = true};

absl::Status Check(const Field& field, const std::string& name,
                   const Json& value) {
  if (!value.is_string()) {
    return ParamError(name, "must be a string, or a list with one a prompt");
  }
  const size_t size = value.get_ref<const std::string&>().size();
  if (size > kMaxBytes) {
    return ParamError(name,
                      absl::StrCat("has more than ", kMaxBytes, " bytes"));
  }
  if (size == 0 && !field.may_be_empty) {
    return ParamError(name, "must not be empty; leave it out instead");
  }
  return absl::OkStatus();
}

// One for each prompt, "" where there is none; empty if the field is absent.
absl::StatusOr<std::vector<std::string>> ReadEach(FieldReader* reader,
                                                  const Field& field,
                                                  size_t num_prompts) {
  const Json* value = reader->Find(field.name);
  if (value == nullptr || (value->is_array() && value->empty())) {
    return std::vector<std::string>();
  }
  if (!value->is_array()) {
    SY_RETURN_IF_ERROR(Check(field, field.name, *value));
    return std::vector<std::string>(num_prompts, value->get<std::string>());
  }
  if (value->size() != num_prompts) {
    return ParamError(field.name,
                      absl::StrCat("has ", value->size(), " entries for ",
                                   num_prompts, " prompts"));
  }
  std::vector<std::string> each;
  for (size_t i = 0; i < num_prompts; ++i) {
    const Json& entry = (*value)[i];
    if (!entry.is_null()) {
      SY_RETURN_IF_ERROR(
          Check(field, absl::StrCat(field.name, "[", i, "]"), entry));
    }
    each.push_back(entry.is_null() ? "" : entry.get<std::string>());
  }
  return each;
}

}  // namespace

std::string CacheScope(absl::string_view cache_salt,
                       absl::string_view extra_key) {
  if (cache_salt.empty() && extra_key.empty()) return "";
  model::Sha256 hash;
  // With the length between them, no two pairs are the same bytes.
  hash.Update(absl::StrCat("switchyard cache scope ", cache_salt.size(), " "));
  hash.Update(cache_salt);
  hash.Update(extra_key);
  return hash.FinishHex();
}

absl::StatusOr<std::vector<std::string>> ReadCacheScopes(FieldReader* reader,
                                                         size_t num_prompts) {
  SY_ASSIGN_OR_RETURN(std::vector<std::string> salts,
                      ReadEach(reader, kSalt, num_prompts));
  SY_ASSIGN_OR_RETURN(std::vector<std::string> keys,
                      ReadEach(reader, kKey, num_prompts));
  if (salts.empty() && keys.empty()) return std::vector<std::string>();
  salts.resize(num_prompts);
  keys.resize(num_prompts);
  std::vector<std::string> scopes;
  for (size_t i = 0; i < num_prompts; ++i) {
    scopes.push_back(CacheScope(salts[i], keys[i]));
  }
  return scopes;
}

}  // namespace switchyard::router
