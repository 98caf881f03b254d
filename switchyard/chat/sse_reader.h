// Server-sent events out of a stream of bytes, as the HTML standard defines
// them.

#ifndef SWITCHYARD_SWITCHYARD_CHAT_SSE_READER_H_
#define SWITCHYARD_SWITCHYARD_CHAT_SSE_READER_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace switchyard {

// Not thread-safe.
class SseReader {
 public:
  // The data of every event that `bytes` completes, in order. Comments and
  // other fields are dropped; several data lines of one event are joined by
  // newlines.
  std::vector<std::string> Add(absl::string_view bytes);

 private:
  void TakeLine(absl::string_view line, std::vector<std::string>* events);

  std::string partial_line_;
  std::string data_;
  bool has_data_ = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SWITCHYARD_CHAT_SSE_READER_H_
