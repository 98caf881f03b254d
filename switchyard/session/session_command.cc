#include "switchyard/session/session_command.h"

#include <cerrno>
#include <cstdio>
#include <limits>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/json.h"
#include "base/mapped_file.h"
#include "base/status_macros.h"
#include "router/client/session_client.h"
#include "router/openai/cache_scope.h"

namespace switchyard {
namespace {

using router::SessionClient;
using router::StateMoved;
using router::StateQuery;

constexpr int64_t kMaxTokensFileBytes = 64 << 20;
constexpr size_t kPartBytes = 1 << 20;
constexpr absl::Duration kTimeout = absl::Minutes(10);

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

absl::Status FileError(const char* what, const std::string& path) {
  return absl::UnavailableError(absl::StrCat(
      what, " ", path, ": ", std::generic_category().message(errno)));
}

absl::Status AppendIds(const Json& ids, std::vector<int32_t>* tokens) {
  if (!ids.is_array()) {
    return absl::InvalidArgumentError("token ids must be a JSON array");
  }
  for (const Json& id : ids) {
    if (!id.is_number_integer() || id < 0 ||
        id > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrCat(DumpJson(id), " is no token id"));
    }
    tokens->push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

absl::Status Need(const char* flag, const std::string& value) {
  return value.empty() ? absl::InvalidArgumentError(absl::StrCat(
                             flag, " is required; see switchyard --help"))
                       : absl::OkStatus();
}

absl::StatusOr<StateQuery> QueryFrom(const SessionCommandOptions& options) {
  SY_RETURN_IF_ERROR(Need("--from", options.from));
  SY_RETURN_IF_ERROR(Need("--to", options.to));
  SY_RETURN_IF_ERROR(Need("--tokens", options.tokens));
  SY_ASSIGN_OR_RETURN(const std::string text,
                      ReadFile(options.tokens, kMaxTokensFileBytes));
  StateQuery query;
  absl::StatusOr<std::vector<int32_t>> tokens = ParseSessionTokens(text);
  if (!tokens.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.tokens, ": ", std::string(tokens.status().message())));
  }
  query.tokens = *std::move(tokens);
  query.cache_scope = router::CacheScope(options.cache_salt, options.extra_key);
  return query;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ParseSessionTokens(
    absl::string_view text) {
  SY_ASSIGN_OR_RETURN(const Json json, ParseJson(text));
  std::vector<int32_t> tokens;
  if (!json.is_object()) {
    SY_RETURN_IF_ERROR(AppendIds(json, &tokens));
  } else {
    const auto prompt = json.find("prompt_token_ids");
    const auto choices = json.find("choices");
    if (choices == json.end() || !choices->is_array() || choices->empty() ||
        !(*choices)[0].is_object() || !(*choices)[0].contains("token_ids")) {
      return absl::InvalidArgumentError(
          "this is no answer with token ids; ask with \"return_token_ids\": "
          "true");
    }
    const Json& choice = (*choices)[0];
    SY_RETURN_IF_ERROR(AppendIds(prompt != json.end()
                                     ? *prompt
                                     : choice.value("prompt_token_ids", Json()),
                                 &tokens));
    SY_RETURN_IF_ERROR(AppendIds(choice["token_ids"], &tokens));
  }
  if (tokens.empty())
    return absl::InvalidArgumentError("there are no token ids");
  return tokens;
}

absl::Status RunSessionSave(const SessionCommandOptions& options,
                            std::ostream& out) {
  SY_ASSIGN_OR_RETURN(const StateQuery query, QueryFrom(options));
  SY_ASSIGN_OR_RETURN(const std::shared_ptr<SessionClient> worker,
                      SessionClient::Create(options.from));
  const std::string partial = options.to + ".partial";
  File file(std::fopen(partial.c_str(), "wbe"));
  if (file == nullptr) return FileError("making", partial);
  const absl::StatusOr<StateMoved> saved = worker->Save(
      query,
      [&](absl::string_view part) {
        return std::fwrite(part.data(), 1, part.size(), file.get()) ==
                       part.size()
                   ? absl::OkStatus()
                   : FileError("writing", partial);
      },
      absl::Now() + kTimeout);
  absl::Status status = saved.status();
  if (std::fclose(file.release()) != 0 && status.ok()) {
    status = FileError("writing", partial);
  }
  if (status.ok() && std::rename(partial.c_str(), options.to.c_str()) != 0) {
    status = FileError("renaming", partial);
  }
  if (!status.ok()) {
    std::remove(partial.c_str());
    return status;
  }
  out << "saved the state of " << saved->num_tokens << " of "
      << query.tokens.size() << " tokens, " << saved->bytes << " bytes, to "
      << options.to << "\n";
  return absl::OkStatus();
}

absl::Status RunSessionLoad(const SessionCommandOptions& options,
                            std::ostream& out) {
  SY_RETURN_IF_ERROR(Need("--from", options.from));
  SY_RETURN_IF_ERROR(Need("--to", options.to));
  SY_ASSIGN_OR_RETURN(const std::shared_ptr<SessionClient> worker,
                      SessionClient::Create(options.to));
  const File file(std::fopen(options.from.c_str(), "rbe"));
  if (file == nullptr) return FileError("opening", options.from);
  const std::unique_ptr<router::StateUpload> upload =
      worker->Load(absl::Now() + kTimeout);
  std::string part(kPartBytes, '\0');
  bool more = true;
  while (more) {
    const size_t size = std::fread(part.data(), 1, part.size(), file.get());
    if (std::ferror(file.get()) != 0) return FileError("reading", options.from);
    more = size > 0 && upload->Write(absl::string_view(part.data(), size));
  }
  SY_ASSIGN_OR_RETURN(const StateMoved loaded, upload->Finish());
  out << options.to
      << (loaded.already_held ? " held the state of " : " took the state of ")
      << loaded.num_tokens << " tokens"
      << (loaded.already_held ? " already" : "") << "\n";
  return absl::OkStatus();
}

absl::Status RunSessionMove(const SessionCommandOptions& options,
                            std::ostream& out) {
  SY_ASSIGN_OR_RETURN(const StateQuery query, QueryFrom(options));
  SY_ASSIGN_OR_RETURN(const std::shared_ptr<SessionClient> from,
                      SessionClient::Create(options.from));
  SY_ASSIGN_OR_RETURN(const std::shared_ptr<SessionClient> to,
                      SessionClient::Create(options.to));
  SY_ASSIGN_OR_RETURN(const StateMoved moved,
                      from->Move(query, to.get(), absl::Now() + kTimeout));
  out << options.to
      << (moved.already_held ? " held the state of " : " took the state of ")
      << moved.num_tokens << " of " << query.tokens.size() << " tokens"
      << (moved.already_held ? " already" : "") << "\n";
  return absl::OkStatus();
}

}  // namespace switchyard
