// `switchyard chat`: talks to a running server from the terminal, streaming.

#ifndef SWITCHYARD_SWITCHYARD_CHAT_CHAT_COMMAND_H_
#define SWITCHYARD_SWITCHYARD_CHAT_CHAT_COMMAND_H_

#include <iosfwd>
#include <string>

#include "absl/status/status.h"

namespace switchyard {

struct ChatOptions {
  std::string host = "127.0.0.1";
  int port = 8080;
  std::string system_prompt;  // "": none
  bool enable_thinking = false;
  bool interactive = true;  // prints prompts and hints
};

// Reads one user message a line from `in`, sends the conversation so far to
// /v1/chat/completions, and writes the answer to `out` as it comes. "/reset"
// forgets the conversation, "/exit" or the end of input ends it. UNAVAILABLE:
// nobody listens at host:port. A refused request is printed, its message
// forgotten, and the conversation goes on.
absl::Status RunChat(const ChatOptions& options, std::istream& in,
                     std::ostream& out);

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_CHAT_CHAT_COMMAND_H_
