// `switchyard session`: a session's state as one object, between attention
// workers and files.

#ifndef SWITCHYARD_SWITCHYARD_SESSION_SESSION_COMMAND_H_
#define SWITCHYARD_SWITCHYARD_SESSION_SESSION_COMMAND_H_

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace switchyard {

struct SessionCommandOptions {
  std::string from;    // save, move: host:port; load: a file
  std::string to;      // load, move: host:port; save: a file
  std::string tokens;  // save, move: a file, see ParseSessionTokens()
  // What the session's requests had, if anything.
  std::string cache_salt;
  std::string extra_key;
};

// A JSON array of token ids; or an answer of the server to a request with
// "return_token_ids": true, for the tokens of its prompt and its first choice.
// INVALID_ARGUMENT: neither.
absl::StatusOr<std::vector<int32_t>> ParseSessionTokens(absl::string_view text);

// The state behind the longest prefix of the tokens that the worker keeps, into
// a file, which appears when it is whole. These three tell on `out` what they
// did. Errors: the worker's (proto/session.proto), with its address; those of
// files.
absl::Status RunSessionSave(const SessionCommandOptions& options,
                            std::ostream& out);
absl::Status RunSessionLoad(const SessionCommandOptions& options,
                            std::ostream& out);
absl::Status RunSessionMove(const SessionCommandOptions& options,
                            std::ostream& out);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_SESSION_SESSION_COMMAND_H_
